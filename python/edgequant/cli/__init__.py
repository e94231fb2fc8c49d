"""The command line: `main` chooses the verb, each verb is a module of its own."""
