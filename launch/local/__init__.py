"""Several workers on this machine: started, watched, ended, started again."""
