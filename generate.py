"""Continue a prompt: python generate.py prompt="Every effort moves you" (or --help)."""

from gpt_pretrain.cli.commands import generate_command

if __name__ == "__main__":
    generate_command()
