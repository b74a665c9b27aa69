"""What finished and unfinished runs say: read, compared, drawn, and put on a page."""
