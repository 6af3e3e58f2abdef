"""Jobs that use the client, where it is installed for the server's interpreter."""

import pathlib
import shutil
import tempfile
import unittest
import venv

import cloudpickle
from harness import PATIENCE_S, Server, ServerTest, square

import trine
from trine import Client


def submit_another(url, primes):
    with Client(url) as client:
        job = client.submit({"type": "primes", "below": primes}, bound="cpu", wait=PATIENCE_S)
    trine.progress(job.id)
    return job.output["count"], trine.job_id()


def map_there(url, how):
    with trine.Executor(url, how=how) as executor:
        return list(executor.map(pow, [2, 3], [5, 5]))


def stop_by_itself():
    raise trine.Stopped


class ClientInJobs(ServerTest):
    def test_where_it_is_installed(self):
        home = tempfile.mkdtemp(prefix="trine-python-")
        self.addCleanup(shutil.rmtree, home)
        venv.EnvBuilder(symlinks=True).create(home)
        (packages,) = pathlib.Path(home).glob("lib/python*/site-packages")
        for package in (trine, cloudpickle):
            folder = pathlib.Path(package.__file__).parent
            shutil.copytree(folder, packages / folder.name)
        settings = ("--python-interpreters", f"with={home}/bin/python", "--python-network", "allow", "--python-processes", "2")
        server = self.opened(Server(*settings))
        for how in ("pickle", "source"):
            for kind in ("processes", "threads", "async"):
                with self.subTest(f"{how} on {kind}"):
                    executor = self.executor(server.url, how=how, executor=kind, interpreter="with", network=True)
                    call = executor.submit(submit_another, server.url, 100)
                    self.assertEqual(list(call.result(PATIENCE_S)), [25, call.job_id])
                    self.assertEqual(executor.submit(map_there, server.url, how).result(PATIENCE_S), [32, 243])
                    error = executor.submit(stop_by_itself).exception(PATIENCE_S)
                    self.assertIn("Stopped", repr(error))

    def test_where_it_is_not(self):
        for how in ("pickle", "source"):
            with self.subTest(how), self.executor(how=how) as executor:
                for function in (submit_another, map_there):
                    error = executor.submit(function, self.url, 1).exception(PATIENCE_S)
                    self.assertIn("the client as far as that is installed", str(error))
                self.assertEqual(executor.submit(square, 2).result(PATIENCE_S), 4)


if __name__ == "__main__":
    unittest.main()
