"""The stages of a run, in the order in which a row goes through them: survey, plan, generate, publish."""
