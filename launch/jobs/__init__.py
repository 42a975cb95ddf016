"""What a job is: from a command line to a Job, its machines, its price, and the plan of it. It asks nobody."""
