"""Everything that knows torch's compiler: graphs, loop forms, kernels, and a patch."""
