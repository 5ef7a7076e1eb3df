"""What the pages share: the frame, architecture controls, figures, tables, browser components."""
