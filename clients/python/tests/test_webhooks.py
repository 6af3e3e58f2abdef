"""What clients are told of webhooks, with a real receiver."""

import http.server
import threading
import unittest

from harness import PATIENCE_S, Server, ServerTest

import trine

SLEEP = {"type": "sleep", "ms": 0}


class Receiver(http.server.ThreadingHTTPServer):
    """Answers with what it is told to; without anything, that it is not there any more."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.answers = []
        self.url = f"http://127.0.0.1:{self.server_port}/hook"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(self.server.answers.pop(0) if self.server.answers else 410)
            self.end_headers()

        def log_message(self, *_):
            pass

    def close(self):
        self.shutdown()
        self.server_close()


class Webhooks(ServerTest, unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.server = Server("--http-allow", "127.0.0.1", "--webhook-backoff-ms", "1")
        self.addCleanup(self.server.close)
        self.receiver = Receiver()
        self.addCleanup(self.receiver.close)

    def test_a_message_that_comes_and_comes_again(self):
        self.receiver.answers = [503, 204]
        client = self.client(self.server.url)
        job = client.submit(SLEEP, bound="io", wait=10, webhook={"url": self.receiver.url, "events": ["succeeded"]})
        (delivery,) = self.until(lambda: list(client.deliveries(job.id, state="delivered")))
        self.assertEqual((delivery.job, delivery.type, delivery.url), (job.id, "job.succeeded", self.receiver.url))
        self.assertEqual([attempt.status for attempt in delivery.attempts], [503, 204])
        self.assertEqual(delivery.finished_at, job.finished_at)
        self.assertEqual(list(client.deliveries(job.id, state="pending")), [])
        self.assertEqual(client.redeliver(delivery.id).id, delivery.id)
        (again,) = self.until(lambda: list(client.deliveries(state="gone")))
        self.assertEqual((again.id, again.attempts[-1].status), (delivery.id, 410))

    async def test_for_asyncio(self):
        async with trine.AsyncClient(self.server.url) as client:
            job = await client.submit(SLEEP, bound="io", webhook={"url": self.receiver.url})
            await client.wait(job.id, PATIENCE_S)
            while not (found := [each async for each in client.deliveries(job.id, state="gone")]):
                pass
            self.receiver.answers = [204]
            await client.redeliver(found[0].id)
            while not [each async for each in client.deliveries(state="delivered")]:
                pass


if __name__ == "__main__":
    unittest.main()
