"""Hostile programs against the running sandbox service, each with a control that proves the attack would be seen."""
