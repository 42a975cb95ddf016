"""What a person looks at afterwards: a run's page, and runs side by side."""
