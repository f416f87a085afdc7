"""A look at a machine, a point table or a draft of the configuration, in a child process that may fail without costing anything else."""
