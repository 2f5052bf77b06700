"""A pipeline with a callback that nobody would ever call."""

from broadway_py import Message, Pipeline


class Orders(Pipeline[bytes]):
    async def handle_mesage(self, message: Message[bytes]) -> None:
        pass
