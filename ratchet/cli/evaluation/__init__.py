"""What `ratchet eval` is made of: result files, the searches and their grading, comparisons, tables and the plot."""
