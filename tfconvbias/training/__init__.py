"""Run configuration, build, run, resume, report and the command line of the recipes."""
