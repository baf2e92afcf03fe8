"""What follows a training: exported files, many answers at once, packages, and watching a served model."""
