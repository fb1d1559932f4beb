"""How well texts classify: against other wordings, and against heads trained with cross entropy."""
