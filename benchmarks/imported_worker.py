"""Imported by a fork server: what a worker has in memory before it knows its run."""

from nin_core import worker

worker.import_all()
