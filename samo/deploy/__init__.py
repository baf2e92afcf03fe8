"""From a run to what people use elsewhere: export, packages, and what is watched afterwards."""
