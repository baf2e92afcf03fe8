"""What a trained run becomes outside SAMO: cards, exports, packages."""
