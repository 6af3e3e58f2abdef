//! The same work gives the same output everywhere.

use libtest_mimic::Trial;
use serde_json::json;
use trine::job::{Executor, FailureKind, Queue, Runtime};
use trine::workload::Stop;

use crate::{failure, output, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("native_work_gives_the_same_output_on_every_executor", |bench| async move {
            let workspace = bench.folder.path().join("workspace");
            std::fs::write(workspace.join("poem.txt"), "one\ntwo\nthree\n").unwrap();
            let picture = image_rgb(64, 48);
            std::fs::write(workspace.join("picture.png"), picture).unwrap();
            for workload in [
                json!({"type": "primes", "below": 20_000}),
                json!({"type": "sleep", "ms": 3}),
                json!({"type": "file", "op": "count_lines", "path": "poem.txt"}),
                json!({"type": "file", "op": "digest", "path": "poem.txt"}),
                json!({"type": "image", "path": "picture.png", "resize": {"width": 16, "height": 12}, "format": "png"}),
                json!({"type": "spin", "cpu_ms": 2}),
                json!({"type": "hold", "hold_ms": 2}),
            ] {
                let mut outputs = Vec::new();
                for queue in Queue::of(Runtime::Native) {
                    outputs.push(output(&bench.run_on(queue, workload.clone(), None, Stop::default()).await));
                }
                assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]), "{workload}: {outputs:?}");
            }
        }),
        trial("a_panic_fails_its_own_job_and_keeps_its_message", |bench| async move {
            for queue in Queue::of(Runtime::Native) {
                let workload = json!({"type": "panics", "message": "on purpose"});
                let measured = bench.run_on(queue, workload, None, Stop::default()).await;
                let failure = failure(&measured);
                assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Panic, "on purpose"), "{queue}");
                let next = bench.run_on(queue, json!({"type": "primes", "below": 100}), None, Stop::default()).await;
                assert_eq!(output(&next), json!({"count": 25}), "{queue}");
            }
        }),
        trial("work_that_this_server_does_not_know_fails_by_name", |bench| async move {
            for executor in Executor::ALL {
                let measured = bench.run(executor, json!({"type": "unheard-of"})).await;
                assert!(failure(&measured).message.contains("unheard-of"), "{executor}");
            }
        }),
    ]
}

/// A PNG of this size.
fn image_rgb(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x, y, 128].map(|part| part.to_le_bytes()[0])))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}
