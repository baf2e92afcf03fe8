"""``python -m samo_cli``."""

from samo_cli.main import main

if __name__ == "__main__":
    main()
