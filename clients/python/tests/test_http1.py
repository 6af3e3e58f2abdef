"""HTTP and server-sent events, from bytes in all pieces."""

import os
import ssl
import sys
import unittest
from unittest import mock

import harness  # noqa: F401

from trine._following import Follower
from trine._http1 import Request, Response
from trine._server import Server
from trine._sse import Decoder
from trine.errors import Malformed, ProblemError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = HEAD + b"4\r\n[1, \r\n2;x=y\r\n2]\r\n0\r\n\r\n"
LONG = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 6\r\ncontent-type: application/json\r\n\r\n[1, 2]"


class Answers(unittest.TestCase):
    def test_an_answer_may_come_in_any_pieces(self):
        for data in (CHUNKED, LONG):
            for size in range(1, len(data) + 1):
                answer = Response("GET")
                for start in range(0, len(data), size):
                    self.assertFalse(answer.complete)
                    answer.feed(data[start : start + size])
                self.assertTrue(answer.complete and answer.reusable)
                self.assertEqual(answer.result(), [1, 2])

    def test_an_answer_without_length_ends_with_the_connection(self):
        answer = Response("GET")
        answer.feed(b"HTTP/1.1 200 OK\r\n\r\nsome")
        answer.feed(b" text")
        self.assertFalse(answer.complete)
        answer.feed(b"")
        self.assertEqual((answer.complete, answer.reusable, answer.result()), (True, False, "some text"))

    def test_a_broken_answer_is_not_complete(self):
        for end in range(len(CHUNKED)):
            answer = Response("GET")
            answer.feed(CHUNKED[:end])
            answer.feed(b"")
            self.assertFalse(answer.complete)

    def test_what_is_not_http_is_refused(self):
        lengths = [b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % length for length in (b"-4", b"1_0", b"many", b"\xb2", b"")]
        chunks = [HEAD + length + b"\r\nabcd" for length in (b"no", b"-4", b"0x4", b"1_0", b";x=y")]
        statuses = [b"HTTP/1.1 %s OK\r\n\r\n" % status for status in (b"\xb2\xb2\xb2", b"20", b"000", b"")]
        heads = (b"SSH-2.0\r\n\r\n", *statuses, b"x" * (1 << 17))
        for data in (*heads, *lengths, *chunks):
            with self.subTest(data[:80]), self.assertRaises(Malformed):
                Response("GET").feed(data)

    def test_a_problem_that_is_not_trines_is_one_too(self):
        answer = Response("GET")
        answer.feed(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nbusy")
        with self.assertRaises(ProblemError) as caught:
            answer.result()
        self.assertEqual((caught.exception.status, caught.exception.detail, caught.exception.retry_after), (503, "busy", 7.0))
        self.assertIsNone(caught.exception.pointer)
        for after in (b"\xb2", b"9" * 400, b"-1", b"soon"):
            answer = Response("GET")
            answer.feed(b"HTTP/1.1 503 Busy\r\nRetry-After: %s\r\n\r\n" % after)
            self.assertIsNone(answer.retry_after)

    def test_a_redirect_says_where_to(self):
        answer = Response("GET")
        answer.feed(b"HTTP/1.1 301 Moved\r\nLocation: https://a.example/jobs\r\nContent-Length: 3\r\n\r\nnot")
        with self.assertRaises(ProblemError) as caught:
            answer.result()
        self.assertEqual((caught.exception.status, caught.exception.detail), (301, "it refers to https://a.example/jobs"))


class Requests(unittest.TestCase):
    def test_a_request_is_written_whole(self):
        server = Server.at("http://example.org:8040/trine/", {"Authorization": "Bearer x"})
        query = {"tag": ["a:b", "c&d:e"], "state": None, "limit": 5}
        data = Request("GET", "/jobs", query, headers={"Accept": "text/plain"}).encoded(server).decode()
        self.assertTrue(data.startswith("GET /trine/jobs?tag=a%3Ab&tag=c%26d%3Ae&limit=5 HTTP/1.1\r\nHost: example.org:8040\r\n"))
        self.assertIn("\r\nAuthorization: Bearer x\r\n", data)
        self.assertEqual(data.count("Accept: "), 1)

    def test_what_is_not_said_is_as_the_command_has_it(self):
        said = {"TRINE_SERVER": "https://example.org/trine", "TRINE_KEY": "trine_a_b", "TRINE_CA_CERT": "/nowhere.pem"}
        with mock.patch.dict(os.environ, said):
            server = Server.at()
            self.assertEqual((server.host, server.port, server.prefix), ("example.org", 443, "/trine"))
            self.assertIn(b"\r\nAuthorization: Bearer trine_a_b\r\n", server.headers)
            with self.assertRaises(FileNotFoundError):
                server.context(None)
            own = ssl.create_default_context()
            self.assertIs(server.context(own), own)
            self.assertIn(b"Bearer mine\r\n", Server.at("http://a", key="mine").headers)
            self.assertNotIn(b"trine_a_b", Server.at("http://a", {"authorization": "Basic x"}).headers)
        self.assertEqual((Server.at().host, Server.at().port), ("127.0.0.1", 8040))

    def test_an_address_that_is_none_is_refused(self):
        for url in ("ftp://example.org", "http://", "http://a:b:c"):
            with self.assertRaises(ValueError):
                Server.at(url)
        with self.assertRaises(ValueError):
            Server.at("http://a", {"X": "1\r\nY: 2"})
        with self.assertRaisesRegex(TypeError, "http://host:port, not 4"):
            Server.at(4)

    def test_an_address_with_what_would_be_left_out_is_refused(self):
        for url in ("http://me:secret@a:1", "http://me@a", "a:1?token=secret", "http://a/#secret"):
            with self.subTest(url), self.assertRaisesRegex(ValueError, "without a user, a password or a query") as caught:
                Server.at(url)
            self.assertNotIn("secret", str(caught.exception))


class Events(unittest.TestCase):
    def test_events_may_come_in_any_pieces(self):
        data = b': keep-alive\n\nid: 12\nevent: log\ndata: {"a":\ndata: 1}\n\nid:13\nevent:finished\ndata:{}\n\nid: 14\nda'
        for size in range(1, len(data) + 1):
            decoder, found = Decoder(), []
            for start in range(0, len(data), size):
                found += decoder.feed(data[start : start + size])
            self.assertEqual(found, [(12, "log", b'{"a":\n1}'), (13, "finished", b"{}")])

    def test_a_long_event_is_taken_apart_once(self):
        decoder, taken_apart = Decoder(), []

        def look(frame, event, called):
            if event == "c_call" and called.__name__ == "split":
                taken_apart.append(called)

        sys.setprofile(look)
        try:
            found = [decoder.feed(piece) for piece in (b"id: 1\ndata: ", *[b"x" * 100] * 100, b"\n", b"\nid: 2\n\n")]
        finally:
            sys.setprofile(None)
        self.assertEqual(found[-1], [(1, "message", b"x" * 10_000), (2, "message", b"")])
        self.assertLess(len(taken_apart), 5)

    def test_a_stream_goes_on_where_the_server_says_that_it_began_whatever_its_clock_says(self):
        follower = Follower(None, {}, ())
        answer = Response("GET")
        answer.feed(b"HTTP/1.1 200 OK\r\nDate: Fri, 31 Dec 9998 23:59:59 GMT\r\n\r\n")
        follower.opened(answer)
        self.assertEqual(list(follower.decode(b"id: 5\n\n")), [])
        self.assertEqual(follower.request().headers["Last-Event-ID"], "5")
        self.assertEqual([message.id for message in follower.decode(b"id: 6\nevent: running\ndata: {}\n\n")], [6])
