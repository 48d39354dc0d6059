"""Does pretraining pay? Studies of fine-tuning on few labels; the command is `__main__`."""
