"""``python -m broadway_py`` is the ``broadway`` command."""

from broadway_py.cli import main

if __name__ == "__main__":
    main()
