"""What `launch doctor` looks at, and `launch submit` before it makes a job. Each check changes nothing."""
