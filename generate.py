"""Continue a prompt: python generate.py prompt="Every effort moves you" (python generate.py --help)."""

from gpt_pretrain.cli.commands import generate

if __name__ == "__main__":
    generate()
