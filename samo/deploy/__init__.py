"""Models outside SAMO: what is exported, and what is watched afterwards."""
