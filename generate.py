"""Continue a prompt: python generate.py prompt="Every effort moves you" (or --help)."""

if __name__ == "__main__":
    from gpt_pretrain.launch.signals import listen

    listen()  # first of all: what follows takes a while to import

    from gpt_pretrain.cli.commands import generate_command

    generate_command()
