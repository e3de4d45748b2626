"""Authorization by a policy file, as the original has it; the default authorizer."""
