"""What clients are told of webhooks, with a real receiver."""

import unittest

from harness import HttpServer, Quiet, Server, ServerTest, every, until, with_both

SLEEP = {"type": "sleep", "ms": 0}


class Receiver(HttpServer):
    """Answers with what it is told to; without anything, that it is not there any more."""

    def __init__(self):
        super().__init__()
        self.url += "/hook"
        self.answers = []

    class Handler(Quiet):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(self.server.answers.pop(0) if self.server.answers else 410)
            self.end_headers()


class Webhooks(ServerTest, unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.server = self.opened(Server("--http-allow", "127.0.0.1", "--webhook-backoff-ms", "1"))
        self.receiver = self.opened(Receiver())

    @with_both
    async def test_a_message_that_comes_and_comes_again(self, connect):
        self.receiver.answers = [503, 204]
        client = connect(self.server.url)
        job = await client.submit(SLEEP, bound="io", wait=10, webhook={"url": self.receiver.url, "events": ["succeeded"]})
        (delivery,) = await until(lambda: every(client.deliveries(job.id, state="delivered")))
        self.assertEqual((delivery.job, delivery.type, delivery.url), (job.id, "job.succeeded", self.receiver.url))
        self.assertEqual([attempt.status for attempt in delivery.attempts], [503, 204])
        self.assertEqual(delivery.finished_at, job.finished_at)
        self.assertEqual(await every(client.deliveries(job.id, state="pending")), [])
        self.assertEqual((await client.redeliver(delivery.id)).id, delivery.id)
        (again,) = await until(lambda: every(client.deliveries(job.id, state="gone")))
        self.assertEqual((again.id, again.attempts[-1].status), (delivery.id, 410))
        self.assertIn(again, await every(client.deliveries(state="gone")))


if __name__ == "__main__":
    unittest.main()
