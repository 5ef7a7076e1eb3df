"""The steps, a file each; Alembic reads them by their numbers."""
