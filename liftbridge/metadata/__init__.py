"""What consensus replicates: commands, the state machine they drive, and the controller that proposes them."""
