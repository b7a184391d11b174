"""What every check shares: running a student's code, comparing values, wording the verdict."""
