"""How functions travel, seen from both ends without a server between them."""

import base64
import datetime
import enum
import functools
import gc
import importlib
import json
import logging
import math
import operator
import os
import os.path as paths
import pickle
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
import urllib.request
import weakref
import xml.dom.minidom
from math import sqrt as root
from os import environ, environb
from unittest import mock

import harness

from trine._chunks import in_chunks
from trine._pickler import unpickled
from trine._references import Changeable, installed
from trine._travel import ByPickle, BySource
from trine.errors import CannotTravel

FIVE = 5
LOG = logging.getLogger(__name__)
SETTINGS = {"five": 5}


def helper(x):
    LOG.debug("helps with %s", x)
    return x + FIVE


def several(x, y=FIVE):
    return helper(x) * y + math.floor(root(16)) + len(paths.join("a", "b"))


def settings():
    return SETTINGS["five"]


def surroundings():
    import os

    return environ is os.environ and environb is os.environb


class Thing:
    def __init__(self, value):
        self.value = value

    def doubled(self):
        return Thing(self.value * 2)


def thing(value):
    return Thing(value)


LOCK = threading.Lock()


def locking(again):
    with LOCK:
        return locked(again)


def locked(again):
    return again and locking(again)


class Locking:
    def method(self):
        return LOCK


class Weighted:
    weight, made = 1, 0


class Level(Weighted, enum.Enum):
    LOW, HIGH, LEAST = ("low", 2), ("high", 9), ("low", 2)

    def __init__(self, label, weight):
        self.weight, self.label, self.others = weight, label, [self]
        Weighted.made += 1


class Coordinate(bytes, enum.Enum):
    PX, PY = (0, "x"), (1, "y")

    def __new__(cls, value, label):
        made = bytes.__new__(cls, [value])
        made._value_, made.label = value, label
        return made


class AutoNumber(enum.Enum):
    def __new__(cls):
        made = object.__new__(cls)
        made._value_ = len(cls.__members__) + 1
        return made


class Numbered(AutoNumber):
    ONE, TWO = (), ()


class Both(enum.IntFlag):
    ONE, TWO, ALL = 1, 2, 3

    def __init__(self, value):
        self.twice = value * 2


class Day(datetime.date, enum.Enum):
    FIRST, SECOND = (2020, 1, 1), (2021, 1, 1)


def total(levels):
    return sum(level.weight for level in levels)


def seen(*members):
    return [{name: value for name, value in vars(each).items() if type(value) in (int, str, tuple)} for each in members]


def later(x):
    yield x


@functools.lru_cache(maxsize=7)
def remembering(x):
    return helper(x)


def with_text():
    def inner():
        return """a
        b
at the margin"""

    return inner


def below_a_module():
    return urllib.request.quote("a b") + xml.dom.minidom.Node.__name__


@unittest.skip
def decorated():
    pass


@functools.wraps(helper)
def wraps_another(x):
    return x


def call(workload):
    """What the server makes of a workload by pickle."""
    function, args, kwargs = pickle.loads(base64.b64decode(json.loads(workload)["pickle"]))
    return function(*args, **kwargs)


def call_source(workload):
    """What it makes of one by source."""
    told = json.loads(workload)
    space = {}
    exec(told["source"], space)
    return space[told["entrypoint"]](*told["args"], **told["kwargs"])


class Pickles(unittest.TestCase):
    def setUp(self):
        self.way = ByPickle(b"")

    def call(self, function, *args, **kwargs):
        return call(self.way.workload(function, args, kwargs))

    def test_a_call_is_what_it_was(self):
        same = [1]
        for _ in range(2):
            self.assertEqual(self.call(several, 2, y=3), several(2, y=3))
            self.assertEqual(self.call(divmod, 7, 2), (3, 1))
            self.assertEqual(self.call(lambda *a, **k: (a, k), same, same, x=same), (([1], [1]), {"x": [1]}))
            self.assertEqual(self.call(Thing(4).doubled).value, 8)
            self.assertEqual(self.call("{}-{}".format, 1, 2), "1-2")

    def test_what_is_not_installed_travels_by_value(self):
        """Another process, which has none of these modules, can make the call."""
        self.assertFalse(installed(__name__))
        self.assertTrue(installed("json.decoder"))
        calls = [(several, (2,)), (thing, (Thing(3),)), (in_chunks(helper), ([(1,), (2,)],)), (Thing(4).doubled, ())]
        [plain, made, chunk, method] = self.elsewhere(*calls)
        self.assertEqual((plain, type(made), made.value.value, chunk, method.value), (several(2), Thing, 3, [6, 7], 8))

    def elsewhere(self, *calls):
        """What calls give in another process, which has none of these modules."""
        program = """if True:
            import base64, cloudpickle, json, pickle, sys
            for line in sys.stdin:
                function, args, kwargs = pickle.loads(base64.b64decode(json.loads(line)["pickle"]))
                print(base64.b64encode(cloudpickle.dumps(function(*args, **kwargs))).decode())
        """
        lines = b"\n".join(self.way.workload(function, args, {}) for function, args in calls)
        folder = harness.pathlib.Path(harness.cloudpickle.__file__).parent.parent
        done = subprocess.run([sys.executable, "-c", program], input=lines, stdout=subprocess.PIPE, cwd=folder, check=True)
        return [unpickled(line) for line in done.stdout.decode().split()]

    def test_the_environment_travels_by_its_name(self):
        with mock.patch.dict(os.environ, SECRET="xyzzy"):
            workload = self.way.workload(surroundings, (), {})
        self.assertNotIn(b"xyzzy", base64.b64decode(json.loads(workload)["pickle"]))
        self.assertTrue(call(workload))

    def test_members_of_enums_are_what_they_were(self):
        self.assertEqual(self.elsewhere((total, ([Level.LOW, Level.HIGH],)), (lambda: Level.HIGH.weight, ())), [11, 9])
        there = [(seen, tuple(kind)) for kind in (Level, Coordinate, Numbered, Both, Day)]
        self.assertEqual(self.elsewhere(*there), [seen(*members) for _, members in there])
        back = [*Level, *Coordinate, *Numbered, *Both, *Day]
        self.assertTrue(all(map(operator.is_, self.elsewhere((list, (back,)))[0], back)))
        others = self.elsewhere((lambda: (Level["LEAST"].name, Both.ALL.twice, Coordinate.PY[0], Day.SECOND.year), ()))
        self.assertEqual(others, [("LOW", 6, 1, 2021)])
        self.assertEqual(Level.made, 3)  # here, and not once more anywhere

    def test_whoever_looks_at_an_enum_as_it_is_made_sees_what_it_saw(self):
        class LabelledMeta(enum.EnumMeta):
            def __new__(cls, name, bases, namespace, **given):
                for each in list(namespace._member_names):
                    value = namespace[each]
                    if isinstance(value, tuple) and isinstance(value[-1], str):  # as Django takes a label from it
                        dict.__setitem__(namespace, each, value[:-1])
                return super().__new__(cls, name, bases, namespace, **given)

        class Labelled(str, enum.Enum, metaclass=LabelledMeta):
            def __init__(self, value):
                self.upper_value = value.upper()

        class Colour(Labelled):
            RED = "r", "Red one"

        class Tabled(enum.Enum):
            def __init__(self, value):
                self.doubled = 2 * value

            def __init_subclass__(cls):
                cls.table = {each.value: each.doubled for each in cls}

        class Table(Tabled):
            ONE = 1

        class Plain(frozenset, enum.Enum):
            ONE = frozenset((1,))

        calls = (
            (lambda one: (str.__str__(one), one.value, one.upper_value), (Colour.RED,)),
            (lambda kind: (kind.table, kind.ONE.doubled), (Table,)),
            (lambda one: list(one), (Plain.ONE,)),
        )
        self.assertEqual(self.elsewhere(*calls), [("r", "r", "R"), ({1: 2} if sys.version_info >= (3, 11) else {}, 2), [1]])

    def test_an_enum_whose_members_can_not_be_made_anew_is_refused(self):
        class Slotted:
            __slots__ = ("weight",)

        class Kept(Slotted, enum.Enum):
            ONE = 1

            def __init__(self, value):
                self.weight = value

        with self.assertRaisesRegex(CannotTravel, r"^total: argument 1 can't be pickled: members of the enum .*Kept are more"):
            self.way.workload(total, ([Kept.ONE],), {})

    def test_a_function_is_pickled_anew_when_what_it_refers_to_is_another(self):
        global FIVE
        try:
            self.assertEqual(self.call(helper, 1), 6)
            FIVE = 6
            self.assertEqual(self.call(helper, 1), 7)
            self.assertEqual(self.call(settings), 5)
            SETTINGS["five"] = 6
            self.assertEqual(self.call(settings), 6)
        finally:
            FIVE = SETTINGS["five"] = 5
        held = 1

        def inner():
            return held  # noqa: F821

        self.assertEqual(self.call(inner), 1)
        held = 2
        self.assertEqual(self.call(inner), 2)
        del held
        with self.assertRaises(NameError):
            self.call(inner)

    def test_a_function_is_pickled_anew_when_it_gets_what_it_lacked(self):
        space = {"__name__": __name__}
        exec("def uses(x): return later(x)\ndef most(x): return max(x)\ndef named(x, *, by): return x * by", space)
        uses, most, named = space["uses"], space["most"], space["named"]
        self.assertRaises(NameError, self.call, uses, 1)
        space["later"] = helper
        self.assertEqual(self.call(uses, 1), helper(1))
        self.assertEqual(self.call(most, [1, 2]), 2)
        space["max"] = min
        self.assertEqual(self.call(most, [1, 2]), 1)
        self.assertRaises(TypeError, self.call, named, 2)
        named.__kwdefaults__ = {"by": 4}
        self.assertEqual(self.call(named, 2), 8)

        def counts():
            return getattr(counts, "count", 0)

        self.assertEqual(self.call(counts), 0)
        counts.count = 5
        self.assertEqual(self.call(counts), 5)

    def test_an_unchanged_function_is_pickled_once(self):
        pickled = []
        make = self.way._functions._make
        self.way._functions._make = lambda function: pickled.append(function) or make(function)
        for _ in range(3):
            self.call(several, 1)
        self.assertEqual(pickled, [several])

    def test_a_function_that_nobody_has_any_more_is_forgotten(self):
        def recursive(data):
            def again(depth=0):
                return again(depth + 1) if depth else len(data)

            return again

        space = {}
        exec("def alone(): return 1", space)
        functions = [lambda held=FIVE: held, recursive("data"), space.pop("alone")]
        gone = [weakref.ref(function) for function in functions]
        for function in functions:
            self.call(function)
            self.assertIn(function, self.way._functions._known)
        del functions, function
        gc.collect()
        self.assertEqual([function() for function in gone], [None] * 3)
        self.assertEqual(len(self.way._functions._known), 0)

    def test_what_can_not_be_pickled_is_named(self):
        with self.assertRaisesRegex(CannotTravel, r"^helper: argument 'x' can't be pickled: .*lock"):
            self.way.workload(helper, (), {"x": threading.Lock()})
        lock = threading.Lock()
        with self.assertRaisesRegex(CannotTravel, r"itself can't be pickled: the variable 'lock' around it: .*lock"):
            self.way.workload(lambda: lock, (), {})
        for function, where in (
            (locked, "its global 'locking': its global 'LOCK'"),
            (in_chunks(locked), "its global 'locking': its global 'LOCK'"),
            (Locking().method, "its global 'LOCK'"),
            (lambda x, *, by=lock: x, "the default of 'by'"),
            (lambda x, y=lock, z=1: x, "the default of 'y'"),
            (functools.singledispatch(helper), "the variable 'dispatch' around it: the variable 'dispatch_cache' around it"),
        ):
            with self.assertRaisesRegex(CannotTravel, f"itself can't be pickled: {where}: "):
                self.way.workload(function, (), {})
        with self.assertRaisesRegex(CannotTravel, "argument 1 can't be pickled: its global 'LOCK': cannot pickle"):
            self.way.workload(map, (locking,), {})

    def test_a_function_that_remembers(self):
        self.assertEqual((self.call(remembering, 4), self.call(len, [1])), (9, 1))
        kept = call(self.way.workload(lambda: (remembering(1), remembering.cache_info().maxsize), (), {}))
        self.assertEqual(kept, (6, 7))

    def test_coroutine_functions_say_so(self):
        async def waits():
            pass

        self.assertEqual(json.loads(self.way.workload(waits, (), {}))["form"], "async")
        self.assertNotIn("form", json.loads(self.way.workload(helper, (1,), {})))

    def test_values_come_back(self):
        data = base64.b64encode(pickle.dumps({1: {2}})).decode()
        self.assertEqual(self.way.value({"pickle": data}), {1: {2}})
        self.assertEqual(unpickled(data), {1: {2}})


class Sources(unittest.TestCase):
    def setUp(self):
        self.way = BySource(b',"network":true')

    def test_a_function_brings_what_it_needs(self):
        workload = self.way.workload(several, (2,), {"y": 3})
        self.assertEqual(call_source(workload), several(2, y=3))
        self.assertTrue(json.loads(workload)["network"])
        self.assertEqual(call_source(self.way.workload(pow, (2, 3), {})), 8)
        self.assertEqual(call_source(self.way.workload(json.dumps, ([(1, 2)],), {})), "[[1, 2]]")
        self.assertEqual(call_source(self.way.workload(in_chunks(several), ([(1,), (2,)],), {})), [several(1), several(2)])

    def test_a_function_with_any_name_is_called_with_each(self):
        for name in ("calls", "args", "trine_each", "call"):
            [module] = self.modules(f"def {name}(x): return x + 1")
            workload = self.way.workload(in_chunks(getattr(module, name)), ([(1,), (2,)],), {})
            self.assertEqual(call_source(workload), [2, 3])

    def test_texts_stay_as_they_are(self):
        self.assertEqual(call_source(self.way.workload(with_text(), (), {})), with_text()())

    def test_modules_that_are_reached_through_others_are_imported(self):
        source = json.loads(self.way.workload(below_a_module, (), {}))["source"]
        self.assertIn("import urllib.request\n", source)
        self.assertIn("import xml.dom.minidom\n", source)
        self.assertEqual(call_source(self.way.workload(below_a_module, (), {})), "a%20bNode")

    def refused(self, function, *args, **kwargs):
        with self.assertRaises(CannotTravel) as caught:
            self.way.workload(function, args, kwargs)
        self.assertNotIsInstance(caught.exception.__context__, Changeable)  # which is nothing to users
        return str(caught.exception)

    def test_what_can_not_travel_is_named(self):
        self.assertIn("it uses the class 'Thing' of its module", self.refused(thing, 1))
        self.assertIn("it uses the dict 'SETTINGS' of its module", self.refused(settings))
        self.assertIn("no def statement", self.refused(lambda: 0))
        self.assertIn("only functions can travel: Thing.doubled is of the type method", self.refused(Thing(1).doubled))
        held = 1

        def inner():
            return held

        self.assertIn("variables of the function around it (held)", self.refused(inner))
        self.assertIn("decorators", self.refused(decorated.__wrapped__))
        self.assertIn("decorators", self.refused(wraps_another))

        def unknown():
            return nowhere  # noqa: F821

        self.assertIn("'nowhere', which is not defined", self.refused(unknown))
        self.assertIn("argument 1 of several has a value of type set", self.refused(several, {1}))
        self.assertIn("argument 'y' of several has inf", self.refused(several, 1, y=math.inf))
        self.assertIn("a dictionary with the key 1", self.refused(several, [{1: 2}]))
        self.assertIn("'$output', which stands for another job's output", self.refused(several, [{"$output": "x"}]))
        self.assertIn("'$output', which stands for another job's output", self.refused(several, 1, **{"$output": {}}))
        cyclic = []
        cyclic.append(cyclic)
        for value in ("caf\udce9.txt", 10**5000, cyclic):
            self.assertIn("argument 2 of several can't be written as JSON", self.refused(several, 1, value))
        self.assertIn("a name of an argument", self.refused(several, **{"caf\udce9": 1}))

    def modules(self, *texts):
        """Modules with these texts, `module_0` and so on, each of which may import from those before."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        made = []
        with mock.patch.object(sys, "path", [folder.name, *sys.path]), mock.patch.dict(sys.modules):
            for number, text in enumerate(texts):
                harness.pathlib.Path(folder.name, f"module_{number}.py").write_text(textwrap.dedent(text))
                made.append(importlib.import_module(f"module_{number}"))
        return made

    def test_a_name_that_means_several_things_is_refused(self):
        for one, other in (
            ("name = 20", "name = 10"),
            ("name = 1", "name = True"),
            ("def name(): return 1", "name = 10"),
            ("from math import floor as name", "from operator import neg as name"),
            ("from math import floor as name", "def name(): return 1"),
            ("import math as name", "import operator as name"),
            ("import math as name", "name = 10"),
            ("import logging; name = logging.getLogger('one')", "import logging; name = logging.getLogger('other')"),
        ):
            for here, there in ((one, other), (other, one)):
                with self.subTest(here=here, there=there):
                    uses = f"from module_0 import g\n{here}\ndef f(): return g(), name"
                    _, module = self.modules(f"{there}\ndef g(): return name", uses)
                    self.assertIn("two things that it needs have the name 'name'", self.refused(module.f))
        _, module = self.modules("def g(x): return max(x, 2)", "from module_0 import g\nmax = 5\ndef f(x): return g(x), max")
        self.assertIn("two things that it needs have the name 'max'", self.refused(module.f, 1))

    def test_a_name_that_means_one_thing_in_several_modules(self):
        same = "import math, xml.dom.minidom\nfrom operator import neg\nLIMIT = 5\n"
        one = f"{same}def g(x): return max(neg(x), LIMIT, math.pi), xml.dom.minidom.Node.__name__"
        other = f"{same}from module_0 import g\nimport xml as same\ndef f(x): return g(x), max(neg(x), LIMIT), same.dom.__name__"
        _, module = self.modules(one, other)
        self.assertEqual(call_source(self.way.workload(module.f, (2,), {})), module.f(2))

    def test_default_values_are_those_that_the_function_has(self):
        functions = []
        for number in range(3):

            def multiply(x, by=number, *, plus=number):
                return x * by + plus

            functions.append(multiply)
        self.assertEqual([call_source(self.way.workload(each, (10,), {})) for each in functions], [0, 11, 22])
        text = """
            import logging, math, socket
            NOW, LOG = -5, logging.getLogger('of defaults')
            def helper(x): return x + 1
            def f(x, now=NOW, more=(1, "a"), kept=[], *, does=helper, low=math.floor, most=math.inf, kind=int, log=LOG, needed):
                return now, more, kept, does(x), low(x), most, kind(x), log.name, needed
            NOW = 6
            def given(x, y=1, z=2): return x, y, z
            given.__defaults__ = 7,
        """
        [module] = self.modules(text)
        workload = self.way.workload(module.f, (2.5,), {"needed": 3})
        self.assertEqual(call_source(workload), module.f(2.5, needed=3))
        self.assertEqual(call_source(self.way.workload(module.given, (1, 2), {})), (1, 2, 7))

    def test_constants_need_not_be_literals(self):
        text = """
            import math
            LOW, KINDS = -math.inf, frozenset("ab")
            def float(x): return x
            def f(high=float(math.inf), none=math.nan, z=complex(1, math.inf), all=slice(None), some=range(3), *, one=(math.inf,),
                  at=(slice(1, -math.inf), ()), kinds=frozenset([1, "a"])):
                return float(high), repr(none), repr(z), all, some, one, at, kinds, LOW, KINDS
        """
        [module] = self.modules(text)
        self.assertEqual(call_source(self.way.workload(module.f, (), {})), module.f())
        _, module = self.modules(
            "N = float('nan')\ndef g(): return N", "from module_0 import g, N\ndef f(): return repr((g(), N))"
        )
        self.assertEqual(call_source(self.way.workload(module.f, (), {})), "(nan, nan)")

    def test_classes_inside_of_functions_of_several_modules(self):
        text = """
            LIMIT: int = 5
            other = 1
            def g():
                class Inside:
                    kept = other
                    other: int = 2
                    twice = other * 2
                    @property
                    def size(self): return other
                    @size.setter
                    def size(self, size): self.kept = size, self.other
                inside = Inside()
                inside.size = 3
                return Inside.__qualname__, Inside.twice, inside.size, inside.kept
        """
        _, module = self.modules(
            text, textwrap.dedent(text).replace("g()", "f()") + "from module_0 import g\ndef both(): return f(), g()"
        )
        self.assertEqual(call_source(self.way.workload(module.both, (), {})), module.both())

    def test_what_a_class_inside_stores_only_sometimes_travels_along(self):
        text = """
            limit = 5
            def sometimes(flag):
                class Inside:
                    if flag: limit = 3
                    twice = limit * 2
                return Inside.twice
            def deleted(flag):
                class Inside:
                    limit = 3
                    if not flag: del limit
                    twice = limit * 2
                return Inside.twice
        """
        [module] = self.modules(text)
        for function in (module.sometimes, module.deleted):
            for limit in (5, 6):  # what was made of it before is not sent again
                module.limit = limit
                for flag, expected in ((False, limit * 2), (True, 6)):
                    with self.subTest(function=function.__name__, limit=limit, flag=flag):
                        self.assertEqual(call_source(self.way.workload(function, (flag,), {})), expected)

    def test_a_name_that_is_built_in_may_be_stored_by_a_class_inside(self):
        text = """
            def f(flag):
                class Inside:
                    if flag: max = min
                    most = max(1, 2)
                return Inside.most
        """
        [module] = self.modules(text)
        for flag, expected in ((False, 2), (True, 1)):
            self.assertEqual(call_source(self.way.workload(module.f, (flag,), {})), expected)
        module.max = sum
        self.assertIn("from builtins import sum as max", json.loads(self.way.workload(module.f, (True,), {}))["source"])
        _, module = self.modules(
            "max = 5\ndef g(): return max",
            text + "\n            from module_0 import g\n            def h(): return g(), f(False)",
        )
        self.assertIn("two things that it needs have the name 'max'", self.refused(module.h))

    def test_what_a_class_inside_stores_need_not_be_anywhere(self):
        text = """
            def f():
                class Inside:
                    x = 1
                    y = x
                    for each in (1, 2):
                        if each == 2: z = kept
                        kept = each
                return Inside.y, Inside.z
            def g():
                class Inside:
                    x = 1
                    def method(self): return x
                return Inside().method()
            def h():
                class Inside:
                    x = 1
                    y = [x for _ in (1, 2)]
                return Inside.y
        """
        [module] = self.modules(text)
        self.assertEqual(call_source(self.way.workload(module.f, (), {})), (1, 1))
        for function in (module.g, module.h):
            self.assertIn("it uses 'x', which is not defined", self.refused(function))
        module.x = 2
        self.assertEqual(call_source(self.way.workload(module.g, (), {})), 2)
        self.assertEqual(call_source(self.way.workload(module.h, (), {})), [2, 2])

    def test_the_body_of_a_class_that_asks_for_the_name_of_its_module(self):
        text = """
            def f():
                class Inside:
                    name = __name__
                    __module__ = "other"
                return Inside.name, Inside.__module__
        """
        [module] = self.modules(text)
        self.assertEqual(call_source(self.way.workload(module.f, (), {})), ("module_0", "other"))

    def test_a_module_keeps_the_name_that_its_functions_ask_for(self):
        [module] = self.modules("def f(): return __name__")
        self.assertEqual(call_source(self.way.workload(module.f, (), {})), "module_0")

    def test_default_values_that_can_not_travel_are_named(self):
        text = """
            import datetime, os
            SETTINGS = {}
            def helper(x): return 1
            def changed(x, kept=[]): kept.append(x)
            def another(x, does=helper): return does(x)
            def made(x, by=datetime.timedelta(1)): pass
            def named(x, settings=SETTINGS): pass
            def there(x, variables=os.environ): pass
            changed(1)
            def helper(x): return 2
        """
        [module] = self.modules(text)
        kinds = {"changed": "list", "another": "function", "made": "timedelta", "there": "_Environ"}
        for name, kind in kinds.items():
            self.assertIn(f"it has a default value of the type {kind}. Only", self.refused(getattr(module, name), 1))
        self.assertIn("it uses the dict 'SETTINGS' of its module", self.refused(module.named, 1))

    def test_annotations_inside_are_what_they_are_and_those_of_the_function_itself_need_nothing(self):
        text = """
            class Unknown: pass
            def f(x: Unknown, *more: Unknown, y: Unknown = 2, **named: Unknown) -> Unknown:
                def inner(z: int) -> str: pass
                return inner.__annotations__, y
        """
        text = textwrap.dedent(text)
        for module in self.modules(text, "from __future__ import annotations\n" + text):
            self.assertEqual(call_source(self.way.workload(module.f, (1,), {})), module.f(1))

    def test_chunks_are_for_functions_that_return_at_once(self):
        self.assertIsNone(in_chunks(later))
