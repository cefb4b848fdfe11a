"""How a replica that joins a group comes to have its state."""
