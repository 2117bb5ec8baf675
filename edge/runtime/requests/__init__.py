"""What comes from callers and goes back to them: submissions, answers, refusals."""
