"""Functions that travel by pickle."""

import base64
import os
import pickle
import sys
import tempfile
import textwrap
import unittest

from harness import HostTest, in_each

WITHOUT_CLOUDPICKLE = "import sys\ndef main(): sys.modules['cloudpickle'] = None"


def reduced(text):
    """What becomes a value when it is unpickled: that of an expression."""
    return Expression(textwrap.dedent(text))


class Expression:
    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return eval, (self.text,)


class Pickles(HostTest):
    def call(self, host, function, *args, **kwargs):
        data = base64.b64encode(pickle.dumps((function, args, kwargs))).decode()
        return host.call(code=None, pickle=data)

    def value(self, done):
        self.assertNotIn("error", done)
        self.assertNotIn("output", done)
        return pickle.loads(base64.b64decode(done["pickle"]))

    @in_each()
    def test_a_value_comes_back_as_it_is(self, host):
        self.assertEqual(self.value(self.call(host, divmod, 7, 2)), (3, 1))
        self.assertEqual(self.value(self.call(host, dict, [(1, {2})], x=b"3")), {1: {2}, "x": b"3"})
        large = os.urandom(5 << 20)
        self.assertEqual(self.value(self.call(host, bytes, large)), large)

    @in_each()
    def test_an_exception_comes_back_as_it_is(self, host):
        done = self.call(host, int, "x")
        self.assertEqual((done["error"]["type"], done["error"]["kind"]), ("ValueError", "error"))
        error = pickle.loads(base64.b64decode(done["pickle"]))
        self.assertIsInstance(error, ValueError)
        self.assertEqual(str(error), done["error"]["message"])

    @in_each()
    def test_an_exception_that_cannot_be_pickled_is_told_only(self, host):
        host.call(WITHOUT_CLOUDPICKLE)
        done = self.call(host, reduced("lambda: (_ for _ in ()).throw(ValueError(lambda: 0))"))
        self.assertEqual(done["error"]["type"], "ValueError")
        self.assertNotIn("pickle", done)

    @in_each()
    def test_an_exception_whose_class_takes_something_else_than_its_args_comes_back(self, host):
        # By Python's own way it can be pickled, but not unpickled.
        error = "__import__('urllib.error').error.ContentTooShortError('a', b'b')"
        done = self.call(host, reduced(f"lambda: (_ for _ in ()).throw({error})"))
        error = pickle.loads(base64.b64decode(done["pickle"]))
        self.assertEqual((type(error).__name__, error.args, error.content), ("ContentTooShortError", ("a",), b"b"))
        # Part of this one is where no attribute is: better told than brought back without it.
        kept = "type('Kept', (OSError,), {'__module__': 'builtins', '__init__': lambda self, path: OSError.__init__(self, 2, 'no', path)})"
        error = f"[setattr(__import__('builtins'), 'Kept', {kept}), __import__('builtins').Kept('p')][1]"
        done = self.call(host, reduced(f"lambda: (_ for _ in ()).throw({error})"))
        self.assertIn("no: 'p'", done["error"]["message"])
        self.assertNotIn("pickle", done)
        done = self.call(host, reduced("lambda: (_ for _ in ()).throw(UnicodeDecodeError('utf-8', b'x', 0, 1, 'y'))"))
        self.assertIsInstance(pickle.loads(base64.b64decode(done["pickle"])), UnicodeDecodeError)

    @unittest.skipIf(sys.version_info < (3, 11), "exception groups came with Python 3.11")
    @in_each()
    def test_so_does_one_in_a_group(self, host):
        error = "ExceptionGroup('g', [__import__('urllib.error').error.ContentTooShortError('a', b'b'), ValueError(1)])"
        done = self.call(host, reduced(f"lambda: (_ for _ in ()).throw({error})"))
        group = pickle.loads(base64.b64decode(done["pickle"]))
        self.assertEqual((group.message, [each.args for each in group.exceptions]), ("g", [("a",), (1,)]))
        self.assertEqual(group.exceptions[0].content, b"b")

    @in_each()
    def test_a_generator_reports_only_if_it_is_what_the_function_is(self, host):
        error = self.call(host, reduced("lambda: (i for i in range(3))"))["error"]
        self.assertEqual(error["kind"], "invalid")
        self.assertIn("generator", error["message"])
        steps = """[globals().update(f=None), exec("def f():\\n yield 1\\n return 2", globals()), f][-1]"""
        for function in (steps, f"__import__('functools').partial({steps})", f"__import__('functools').wraps({steps})(lambda: f())"):
            self.assertEqual(self.value(self.call(host, reduced(function))), 2)

    @in_each(max_output_bytes=1000)
    def test_a_value_that_cannot_be_pickled_is_invalid(self, host):
        host.call(WITHOUT_CLOUDPICKLE)
        error = self.call(host, reduced("lambda: lambda: 0"))["error"]
        self.assertEqual(error["kind"], "invalid")
        self.assertIn("the output can't be pickled: ", error["message"])
        error = self.call(host, bytes, 1000)["error"]
        self.assertEqual(error["kind"], "invalid")
        self.assertRegex(error["message"], "^the output takes 10.. bytes; the most is 1000")

    @in_each()
    def test_a_missing_cloudpickle_is_named(self, host):
        host.call(WITHOUT_CLOUDPICKLE)
        data = b"ccloudpickle.cloudpickle\n_make_function\n."
        error = host.call(code=None, pickle=base64.b64encode(data).decode())["error"]
        self.assertEqual((error["kind"], error["type"]), ("invalid", "ModuleNotFoundError"))
        self.assertIn("cloudpickle, which is not installed for the server's interpreter", error["message"])

    @in_each()
    def test_cloudpickle_is_used_where_pickle_will_not_do(self, host):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "cloudpickle.py"), "w") as file:
                file.write(
                    "import pickle\ndef dumps(value, protocol): return pickle.dumps(['by cloudpickle', value()], protocol)\n"
                )
            host.call(
                "import sys\ndef main(path):\n    sys.path.insert(0, path)\n    sys.modules.pop('cloudpickle', None)", folder
            )
            self.assertEqual(self.value(self.call(host, reduced("lambda: lambda: 5"))), ["by cloudpickle", 5])
            self.assertEqual(self.value(self.call(host, reduced("lambda: 5"))), 5)

    @in_each()
    def test_what_is_pickled_by_name_is_not_found_in_the_host(self, host):
        error = host.call(code=None, pickle=base64.b64encode(b"(c__main__\nmain\n)}t.").decode())["error"]
        self.assertEqual(error["type"], "AttributeError")
        self.assertIn("'main'", error["message"])

    @in_each()
    def test_coroutines_and_generators_travel_too(self, host):
        source = "(lambda space: (exec('async def f(a):\\n    return a\\ndef g(a):\\n    yield a\\n    return a', space), space)[1])({})"
        self.assertEqual(self.value(self.call(host, reduced(source + "['f']"), 4)), 4)
        self.assertEqual(self.value(self.call(host, reduced(source + "['g']"), 4)), 4)
        self.assertEqual(host.progress[2], [4])
