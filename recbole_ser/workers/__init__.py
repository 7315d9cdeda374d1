"""Training on several processes, the workers, which share each batch: who they are, their rows and their draws."""
