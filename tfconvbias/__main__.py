"""`python -m tfconvbias`: the same as `tcb`."""

from tfconvbias.commands import main

if __name__ == "__main__":
    main()
