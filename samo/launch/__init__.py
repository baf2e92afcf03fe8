"""Where work runs: processes of this machine, a Ray cluster, a store that machines share."""
