"""What was submitted: its records, and the jobs that they stand for, told of and followed to their ends."""
