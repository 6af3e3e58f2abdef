//! `image`: resizes, blurs and converts an image.

use std::io::{BufRead, BufReader, Cursor, Seek};
use std::pin::pin;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fast_image_resize::{ResizeOptions, Resizer};
use futures_util::FutureExt as _;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgba, RgbaImage};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::unconstrained;
use utoipa::ToSchema;

use super::content::sha256;
use super::workspace::Workspace;
use super::{Context, Environment, Invalid, Likeness, Stop, Work, Workload};
use crate::clock::Monotonic;
use crate::job::{Bound, Failure, Form};
use crate::measure::waited_for_turn;

const MAX_FILE_BYTES: u64 = 64 << 20;
const MAX_SOURCE_SIDE: u32 = 16_384;
const MAX_DECODED_BYTES: u64 = 256 << 20;
/// How much of a PNG that is not its picture is unpacked: a colour profile beyond that is left out, a longer text is refused.
const MAX_ASIDE_BYTES: u64 = 4 << 20;
const MAX_RESULT_SIDE: u32 = 8_192;
const MAX_BLUR: f32 = 100.0;
const MAX_DATA_BYTES: usize = 8 << 20;
/// What the room for images is counted in.
const UNIT_BYTES: u64 = 64 << 10;
/// How often an image that waits for room looks whether it is to end.
const LOOK: Duration = Duration::from_millis(10);

/// Which image, what to do with it, and where the result goes. It is resized first, then blurred.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    /// The image file (PNG, JPEG, WebP or BMP, up to 64 MiB), relative to the workspace folder. Either this or `data`.
    #[schema(min_length = 1, example = "photos/in.jpg")]
    path: Option<String>,
    /// The image itself in base64. Either this or `path`.
    #[serde(default, deserialize_with = "base64")]
    #[schema(value_type = Option<String>, format = Byte)]
    data: Option<Vec<u8>>,
    /// The size that it gets.
    #[schema(inline)]
    resize: Option<Resize>,
    /// How much it is blurred: the standard deviation in pixels.
    #[schema(exclusive_minimum = 0, maximum = 100)]
    blur: Option<f32>,
    /// The format of the result. Without it, the one that the name in `to` ends with, such as `.jpg`, or else `png`.
    #[schema(inline)]
    format: Option<Format>,
    /// Where the result is written, relative to the workspace folder. Missing folders are created, an older file is replaced.
    #[schema(min_length = 1)]
    to: Option<String>,
    /// Without `to`: whether the result is returned as `data` in base64 (up to 8 MiB of it), or only as its SHA-256.
    #[schema(inline)]
    output: Option<Returned>,
}

/// The new size in pixels. With one side only, the other one follows.
#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Resize {
    #[schema(minimum = 1, maximum = 8192)]
    width: Option<u32>,
    #[schema(minimum = 1, maximum = 8192)]
    height: Option<u32>,
    #[serde(default)]
    #[schema(inline)]
    fit: Fit,
}

/// What becomes of the proportions if both sides are given: `contain` keeps them and makes one side shorter, `cover` keeps them and
/// cuts off what is too much, `fill` stretches.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(default = "contain")]
enum Fit {
    #[default]
    Contain,
    Cover,
    Fill,
}

/// `webp` is lossless, `jpeg` puts white behind what is transparent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Png,
    Jpeg,
    Webp,
    Bmp,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Returned {
    #[default]
    Data,
    None,
}

#[derive(Serialize)]
struct Done {
    width: u32,
    height: u32,
    format: Format,
    bytes: usize,
    #[serde(flatten)]
    result: Stored,
}

/// Where the result is, or what is left of it.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Path(String),
    Data(String),
    Sha256(String),
}

impl Workload for Image {
    const TYPE: &'static str = "image";
    const ABOUT: &'static str = "Resizes, blurs and converts an image.";
    const BOUND: Bound = Bound::Cpu;
    const FORM: Form = Form::Blocking;

    fn example() -> serde_json::Value {
        // A picture of 2 x 2 pixels, so that the example needs no file.
        let picture = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEklEQVR42mP4z8DAAMIM/4EAAB/uBfvxq7p3AAAAAElFTkSuQmCC";
        json!({ "data": picture, "resize": { "width": 64, "height": 64 }, "blur": 2.0, "format": "png", "output": "none" })
    }

    fn check(&self, _environment: &Environment) -> Result<(), Invalid> {
        match (&self.path, &self.data) {
            (Some(path), None) => Workspace::check(path).map_err(|message| Invalid::new("/path", message))?,
            (None, Some(_)) => {}
            (None, None) => return Err(Invalid::new("/path", "either `path` or `data` is needed")),
            (Some(_), Some(_)) => return Err(Invalid::new("/data", "not together with `path`")),
        }
        if let Some(Resize { width, height, .. }) = self.resize {
            if width.is_none() && height.is_none() {
                return Err(Invalid::new("/resize", "`width`, `height` or both are needed"));
            }
            for (pointer, side) in [("/resize/width", width), ("/resize/height", height)] {
                if side.is_some_and(|side| !(1..=MAX_RESULT_SIDE).contains(&side)) {
                    return Err(Invalid::new(pointer, format!("from 1 to {MAX_RESULT_SIDE}")));
                }
            }
        }
        if self.blur.is_some_and(|blur| !(blur > 0.0 && blur <= MAX_BLUR)) {
            return Err(Invalid::new("/blur", format!("above 0, and at most {MAX_BLUR}")));
        }
        if let Some(to) = &self.to {
            Workspace::check(to).map_err(|message| Invalid::new("/to", message))?;
            if self.output.is_some() {
                return Err(Invalid::new("/output", "not together with `to`"));
            }
        }
        Ok(())
    }

    fn likeness(&self) -> Likeness {
        // How large the source is, is known when it is read.
        let like = Likeness::of(Self::TYPE).name(if self.blur.is_some() { "blur" } else { "resize" });
        match self.resize {
            Some(Resize { width, height, .. }) => like.size("side", width.max(height).unwrap_or_default().into()),
            None => like,
        }
    }

    fn work(self, context: Context) -> Work {
        Work::blocking(move || self.run(&context))
    }
}

impl Image {
    fn format(&self) -> Format {
        self.format.or_else(|| Format::of(self.to.as_deref()?)).unwrap_or_default()
    }

    fn run(mut self, context: &Context) -> Result<Done, Failure> {
        let Context { environment, stop, .. } = context;
        stop.check()?;
        let (mut image, _room) = match (&self.path, self.data.take()) {
            (Some(path), _) => {
                let file = environment.workspace.file(path)?;
                if file.metadata().is_ok_and(|metadata| metadata.len() > MAX_FILE_BYTES) {
                    return Err(Failure::error(format!("{path:?} is longer than {MAX_FILE_BYTES} bytes")));
                }
                self.decode(BufReader::new(file), context)?
            }
            (None, data) => self.decode(Cursor::new(data.unwrap_or_default()), context)?,
        };
        stop.check()?;
        if let Some(resize) = &self.resize {
            image = resize.apply(&image)?;
            stop.check()?;
        }
        if let Some(sigma) = self.blur {
            // Its cost does not grow with sigma; that of an exact Gaussian would, to minutes.
            image = image.fast_blur(sigma);
            stop.check()?;
        }
        let format = self.format();
        let encoded = format.encode(&image)?;
        stop.check()?;

        let (width, height, bytes) = (image.width(), image.height(), encoded.len());
        let result = match (self.to, self.output.unwrap_or_default()) {
            (Some(to), _) => {
                environment.workspace.write(&to, |draft| {
                    draft.write_all(&encoded).map_err(|error| Failure::error(format!("can't write {to:?}: {error}")))
                })?;
                Stored::Path(to)
            }
            (None, Returned::None) => Stored::Sha256(sha256(&encoded)),
            (None, Returned::Data) if bytes > MAX_DATA_BYTES => {
                return Err(Failure::error(format!(
                    "the result has {bytes} bytes; above {MAX_DATA_BYTES} it needs a file, by `to`"
                )));
            }
            (None, Returned::Data) => Stored::Data(STANDARD.encode(encoded)),
        };
        Ok(Done { width, height, format, bytes, result })
    }

    /// Decodes an image, upright, into 8 bits a channel, with the room that it takes up. What would need too much memory is refused by its
    /// header.
    fn decode<'a>(
        &self,
        reader: impl BufRead + Seek,
        context: &'a Context,
    ) -> Result<(DynamicImage, SemaphorePermit<'a>), Failure> {
        let mut decoder = open(reader)?;
        let (width, height) = decoder.dimensions();
        let channels = if decoder.color_type().has_alpha() { 4 } else { 3 };
        let bytes = |(width, height)| (u64::from(width) * u64::from(height)).saturating_mul(channels);
        let decoded = decoder.total_bytes().max(bytes((width, height)));
        if width.max(height) > MAX_SOURCE_SIDE || decoded > MAX_DECODED_BYTES {
            return Err(Failure::error(format!(
                "the image has {width} x {height} pixels: at most {MAX_SOURCE_SIDE} a side and {} MiB in all are decoded",
                MAX_DECODED_BYTES >> 20
            )));
        }
        // A broken note on its orientation is no reason to give up an image.
        let orientation = decoder.orientation().ok();
        // It may have to be turned first.
        let resized = self.resize.map_or(0, |to| bytes(to.size(width, height)).max(bytes(to.size(height, width))));
        let room = take(&context.environment.image_room, decoded.max(resized).min(MAX_DECODED_BYTES), &context.stop)?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(|error| undecoded(&error))?;
        if let Some(orientation) = orientation {
            image.apply_orientation(orientation);
        }
        Ok((if image.color().has_alpha() { image.into_rgba8().into() } else { image.into_rgb8().into() }, room))
    }
}

/// Opens an image, of which no more than its header is decoded.
fn open<'a>(reader: impl BufRead + Seek + 'a) -> Result<impl ImageDecoder + 'a, Failure> {
    let mut reader = ImageReader::new(reader).with_guessed_format().map_err(|error| undecoded(&error))?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ASIDE_BYTES);
    reader.limits(limits);
    reader.into_decoder().map_err(|error| undecoded(&error))
}

fn undecoded(error: &dyn std::error::Error) -> Failure {
    Failure::error(format!("can't decode the image: {error}"))
}

/// Room for what images are decoded and resized to at the same time: for as many of the largest ones as there are cores, since more would
/// not be done sooner.
pub(super) fn room() -> Semaphore {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(cores * units(MAX_DECODED_BYTES) as usize)
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// Waits for its turn to have so much room. It holds its thread meanwhile, as what follows does.
fn take<'a>(room: &'a Semaphore, bytes: u64, stop: &Stop) -> Result<SemaphorePermit<'a>, Failure> {
    let mut turn = pin!(unconstrained(room.acquire_many(units(bytes))));
    loop {
        if let Some(taken) = turn.as_mut().now_or_never() {
            return taken.map_err(|error| Failure::error(error.to_string()));
        }
        let since = Monotonic::now();
        std::thread::sleep(LOOK);
        // It would be taken for work that waits.
        waited_for_turn(since.elapsed());
        stop.check()?;
    }
}

impl Resize {
    fn apply(&self, image: &DynamicImage) -> Result<DynamicImage, Failure> {
        let (width, height) = self.size(image.width(), image.height());
        if width.max(height) > MAX_RESULT_SIDE {
            return Err(Failure::error(format!(
                "the result would have {width} x {height} pixels: at most {MAX_RESULT_SIDE} a side"
            )));
        }
        let mut resized = DynamicImage::new(width, height, image.color());
        let options = match self.fit {
            Fit::Cover => ResizeOptions::new().fit_into_destination(None),
            Fit::Contain | Fit::Fill => ResizeOptions::new(),
        };
        Resizer::new()
            .resize(image, &mut resized, &options)
            .map_err(|error| Failure::error(format!("can't resize the image: {error}")))?;
        Ok(resized)
    }

    /// The new size of an image of this width and height.
    fn size(&self, width: u32, height: u32) -> (u32, u32) {
        match (self.width, self.height, self.fit) {
            (Some(most_wide), Some(most_high), Fit::Contain) => {
                let high = in_proportion(height, most_wide, width);
                if high <= most_high { (most_wide, high) } else { (in_proportion(width, most_high, height), most_high) }
            }
            (Some(wide), Some(high), Fit::Cover | Fit::Fill) => (wide, high),
            (Some(wide), None, _) => (wide, in_proportion(height, wide, width)),
            (None, Some(high), _) => (in_proportion(width, high, height), high),
            (None, None, _) => (width, height),
        }
    }
}

/// `side * new / old`, rounded, at least 1.
fn in_proportion(side: u32, new: u32, old: u32) -> u32 {
    let (side, new, old) = (u64::from(side), u64::from(new), u64::from(old).max(1));
    u32::try_from((side * new + old / 2) / old).unwrap_or(u32::MAX).max(1)
}

impl Format {
    /// The one that a file of this name is taken for.
    fn of(name: &str) -> Option<Self> {
        match ImageFormat::from_path(name).ok()? {
            ImageFormat::Png => Some(Self::Png),
            ImageFormat::Jpeg => Some(Self::Jpeg),
            ImageFormat::WebP => Some(Self::Webp),
            ImageFormat::Bmp => Some(Self::Bmp),
            _ => None,
        }
    }

    fn encode(self, image: &DynamicImage) -> Result<Vec<u8>, Failure> {
        let mut encoded = Cursor::new(Vec::new());
        match self {
            Self::Png => image.write_to(&mut encoded, ImageFormat::Png),
            Self::Webp => image.write_to(&mut encoded, ImageFormat::WebP),
            Self::Bmp => image.write_to(&mut encoded, ImageFormat::Bmp),
            Self::Jpeg => on_white(image).write_to(&mut encoded, ImageFormat::Jpeg),
        }
        .map_err(|error| Failure::error(format!("can't encode the image: {error}")))?;
        Ok(encoded.into_inner())
    }
}

/// The image without transparency.
fn on_white(image: &DynamicImage) -> DynamicImage {
    if !image.color().has_alpha() {
        return image.clone();
    }
    let mut page = RgbaImage::from_pixel(image.width(), image.height(), Rgba([255; 4]));
    image::imageops::overlay(&mut page, image, 0, 0);
    DynamicImage::from(page).into_rgb8().into()
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| STANDARD.decode(text)).transpose().map_err(|error| serde::de::Error::custom(format!("not base64: {error}")))
}

#[cfg(test)]
mod tests {
    use image::codecs::png::PngEncoder;
    use image::{ImageEncoder as _, Luma, Rgb, RgbImage};
    use serde_json::Value;

    use super::super::StopReason;
    use super::super::testing::Bench;
    use super::*;
    use crate::clock::Monotonic;

    /// Left half red, right half blue.
    fn flag(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) }).into()
    }

    fn bytes(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn png(image: &DynamicImage) -> String {
        STANDARD.encode(bytes(image, ImageFormat::Png))
    }

    fn workload(options: &Value) -> Value {
        let mut workload = json!({ "type": "image" });
        workload.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        workload
    }

    fn result(output: &Value) -> DynamicImage {
        image::load_from_memory(&STANDARD.decode(output["data"].as_str().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_file_has_the_format_that_its_name_says_unless_another_one_is_asked_for() {
        for (to, format, expected) in [
            (Some("a/b.JPG"), None, Format::Jpeg),
            (Some("b.webp"), None, Format::Webp),
            (Some("b.bmp"), Some("png"), Format::Png),
            (Some("b.gif"), None, Format::Png),
            (Some("b"), None, Format::Png),
            (None, None, Format::Png),
        ] {
            let image: Image = serde_json::from_value(json!({ "data": "", "to": to, "format": format })).unwrap();
            assert_eq!(image.format(), expected, "{to:?}");
        }
    }

    #[tokio::test]
    async fn every_format_is_read_and_written() {
        let (bench, flag) = (Bench::new(), flag(8, 4));
        for source in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Jpeg] {
            for (name, format) in
                [("png", ImageFormat::Png), ("webp", ImageFormat::WebP), ("bmp", ImageFormat::Bmp), ("jpeg", ImageFormat::Jpeg)]
            {
                let data = STANDARD.encode(bytes(&flag, source));
                let output = bench.run(workload(&json!({ "data": data, "format": name }))).await.unwrap();
                let encoded = STANDARD.decode(output["data"].as_str().unwrap()).unwrap();
                assert_eq!(image::guess_format(&encoded).unwrap(), format);
                assert_eq!(output["bytes"], encoded.len());
                let pixel = result(&output).into_rgb8();
                assert!(pixel.get_pixel(0, 0)[0] > 200 && pixel.get_pixel(7, 3)[2] > 200, "{source:?} to {name}");
            }
        }
    }

    #[tokio::test]
    async fn sizes_follow_the_fit() {
        let (bench, data) = (Bench::new(), png(&flag(200, 100)));
        let cases = [
            (json!({ "width": 50, "height": 50 }), (50, 25)),
            (json!({ "width": 500, "height": 50 }), (100, 50)),
            (json!({ "width": 50, "height": 50, "fit": "cover" }), (50, 50)),
            (json!({ "width": 50, "height": 50, "fit": "fill" }), (50, 50)),
            (json!({ "width": 50 }), (50, 25)),
            (json!({ "height": 50 }), (100, 50)),
            (json!({ "height": 1, "fit": "cover" }), (2, 1)),
            (json!({ "width": 1 }), (1, 1)),
            (json!({ "width": 400, "height": 400 }), (400, 200)),
        ];
        for (resize, (width, height)) in cases {
            let output = bench.run(workload(&json!({ "data": data, "resize": resize }))).await.unwrap();
            assert_eq!((&output["width"], &output["height"]), (&json!(width), &json!(height)), "{resize}");
            assert_eq!((result(&output).width(), result(&output).height()), (width, height), "{resize}");
        }
    }

    #[tokio::test]
    async fn a_blur_mixes_the_halves_and_nothing_else() {
        let bench = Bench::new();
        let output = bench.run(workload(&json!({ "data": png(&flag(64, 16)), "blur": 3.0 }))).await.unwrap();
        let blurred = result(&output).into_rgb8();
        assert!(blurred.get_pixel(32, 8)[0] > 60 && blurred.get_pixel(32, 8)[2] > 60);
        assert_eq!((blurred.get_pixel(0, 8), blurred.get_pixel(63, 8)), (&Rgb([255, 0, 0]), &Rgb([0, 0, 255])));
        // However small the image and however wide the blur.
        for (width, height) in [(1, 1), (1, 50), (3, 2)] {
            for blur in [0.1, 0.5, 1.0, 100.0] {
                bench.run(workload(&json!({ "data": png(&flag(width, height)), "blur": blur }))).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn files_are_read_and_written_in_the_workspace() {
        let bench = Bench::new();
        let workspace = bench.folder.path().join("workspace");
        flag(20, 10).save(workspace.join("in.png")).unwrap();
        let output = bench
            .run(workload(&json!({ "path": "in.png", "resize": { "width": 10 }, "to": "out/small.bmp", "format": "bmp" })))
            .await;
        let written = std::fs::read(workspace.join("out/small.bmp")).unwrap();
        assert_eq!(
            output.unwrap(),
            json!({ "width": 10, "height": 5, "format": "bmp", "bytes": written.len(), "path": "out/small.bmp" })
        );
        assert_eq!(image::load_from_memory(&written).unwrap().width(), 10);
        std::os::unix::fs::symlink("/etc/hostname", workspace.join("link.png")).unwrap();
        assert!(bench.run(workload(&json!({ "path": "link.png" }))).await.unwrap_err().message.contains("outside"));
    }

    #[tokio::test]
    async fn without_output_the_digest_tells_results_apart() {
        let (bench, data) = (Bench::new(), png(&flag(20, 10)));
        let digest = async |blur: f32| {
            let output = bench.run(workload(&json!({ "data": data, "blur": blur, "output": "none" }))).await.unwrap();
            assert!(output.get("data").is_none());
            output["sha256"].as_str().unwrap().to_owned()
        };
        assert_eq!(digest(1.0).await, digest(1.0).await);
        assert_ne!(digest(1.0).await, digest(2.0).await);
    }

    #[tokio::test]
    async fn transparency_stays_or_turns_white() {
        let bench = Bench::new();
        let clear: DynamicImage = RgbaImage::from_pixel(4, 4, Rgba([0, 0, 0, 0])).into();
        let pixel = async |format: &str| {
            result(&bench.run(workload(&json!({ "data": png(&clear), "format": format }))).await.unwrap())
                .into_rgba8()
                .get_pixel(1, 1)
                .0
        };
        assert_eq!(pixel("png").await, [0, 0, 0, 0]);
        assert_eq!(pixel("webp").await[3], 0);
        assert_eq!(pixel("jpeg").await, [255; 4]);
    }

    #[tokio::test]
    async fn other_kinds_of_pixels_are_converted() {
        let bench = Bench::new();
        let gray: DynamicImage = image::ImageBuffer::from_pixel(4, 4, Luma([0x8000_u16])).into();
        for format in ["png", "jpeg", "webp", "bmp"] {
            let output =
                bench.run(workload(&json!({ "data": png(&gray), "format": format, "resize": { "width": 2 } }))).await.unwrap();
            assert_eq!(result(&output).into_rgb8().get_pixel(0, 0), &Rgb([128; 3]), "{format}");
        }
    }

    /// A PNG that says of itself that it has this size, and has next to no content.
    fn bomb(pixel: &DynamicImage, width: u32, height: u32) -> String {
        let mut png = bytes(pixel, ImageFormat::Png);
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        // The check sum of the header: CRC-32, bit by bit.
        let crc = !png[12..29].iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
        });
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        STANDARD.encode(png)
    }

    #[tokio::test]
    async fn bombs_are_refused_by_their_header() {
        let bench = Bench::new();
        for (width, height) in [(50_000, 50_000), (16_385, 1), (1, 16_385), (16_000, 16_000), (0x7fff_ffff, 0x7fff_ffff)] {
            let failure = bench.run(workload(&json!({ "data": bomb(&flag(1, 1), width, height) }))).await.unwrap_err();
            assert!(
                failure.message.contains("pixels: at most") || failure.message.contains("limit"),
                "{width} x {height}: {failure}"
            );
        }
        let failure = bench.run(workload(&json!({ "data": bomb(&flag(1, 1), 50_000, 50_000) }))).await.unwrap_err();
        assert_eq!(failure.message, "the image has 50000 x 50000 pixels: at most 16384 a side and 256 MiB in all are decoded");
        // It is as large as what is made of it: a grey one is decoded into three channels.
        let grey = bomb(&flag(1, 1).into_luma8().into(), 10_000, 10_000);
        let failure = bench.run(workload(&json!({ "data": grey }))).await.unwrap_err();
        assert!(failure.message.starts_with("the image has 10000 x 10000 pixels: at most "), "{failure}");
        // A thin image must not be blown up by a side that follows.
        let failure = bench.run(workload(&json!({ "data": png(&flag(1, 100)), "resize": { "width": 8192 } }))).await.unwrap_err();
        assert_eq!(failure.message, "the result would have 8192 x 819200 pixels: at most 8192 a side");
    }

    #[test]
    fn a_profile_that_unpacks_to_much_is_left_out() {
        let png = |profile: Vec<u8>| {
            let mut png = Vec::new();
            let mut encoder = PngEncoder::new(&mut png);
            encoder.set_icc_profile(profile).unwrap();
            flag(2, 2).write_with_encoder(encoder).unwrap();
            png
        };
        let (small, large) = (png(vec![0; 1000]), png(vec![0; 8 << 20]));
        assert_eq!(open(Cursor::new(small)).unwrap().icc_profile().unwrap(), Some(vec![0; 1000]));
        let mut large = open(Cursor::new(large)).unwrap();
        assert!(large.icc_profile().unwrap().is_none() && DynamicImage::from_decoder(large).unwrap() == flag(2, 2));
    }

    #[tokio::test]
    async fn what_is_decoded_at_once_has_an_end() {
        let bench = Bench::new();
        let room = &bench.registry.environment().image_room;
        let all = room.available_permits();
        let others = room.acquire_many(u32::try_from(all).unwrap()).await.unwrap();
        let (job, stop) = (workload(&Image::example()), Stop::default());
        stop.stop_at(Monotonic::from_nanos(Monotonic::now().as_nanos() + 100_000_000));
        assert_eq!(bench.run_until(job.clone(), stop).await, Err(Failure::error("stopped")));
        drop(others);
        bench.run(job).await.unwrap();
        assert_eq!(room.available_permits(), all);
    }

    #[tokio::test]
    async fn what_is_no_image_fails_with_a_sentence() {
        let bench = Bench::new();
        let mut cut = bytes(&flag(100, 100), ImageFormat::Png);
        cut.truncate(60);
        for data in ["", "AAAA", &STANDARD.encode(b"GIF89a__________"), &STANDARD.encode(cut)] {
            let failure = bench.run(workload(&json!({ "data": data }))).await.unwrap_err();
            assert!(failure.message.starts_with("can't decode the image: "), "{failure}");
        }
    }

    #[tokio::test]
    async fn it_ends_when_asked() {
        let stop = Stop::default();
        stop.stop(StopReason::Deadline);
        assert_eq!(Bench::new().run_until(workload(&Image::example()), stop).await, Err(Failure::error("stopped")));
    }

    #[test]
    fn parameters_are_checked() {
        let bench = Bench::new();
        let wrong = [
            (json!({}), "/path"),
            (json!({ "path": "a.png", "data": "AAAA" }), "/data"),
            (json!({ "path": "../a.png" }), "/path"),
            (json!({ "data": "no base64" }), "/data"),
            (json!({ "path": "a", "resize": {} }), "/resize"),
            (json!({ "path": "a", "resize": { "width": 0 } }), "/resize/width"),
            (json!({ "path": "a", "resize": { "height": 8193 } }), "/resize/height"),
            (json!({ "path": "a", "resize": { "width": 1, "fit": "squeeze" } }), "/resize/fit"),
            (json!({ "path": "a", "resize": { "w": 1 } }), "/resize/w"),
            (json!({ "path": "a", "blur": 0 }), "/blur"),
            (json!({ "path": "a", "blur": 101 }), "/blur"),
            (json!({ "path": "a", "blur": 1e300 }), "/blur"),
            (json!({ "path": "a", "format": "gif" }), "/format"),
            (json!({ "path": "a", "to": "/tmp/a.png" }), "/to"),
            (json!({ "path": "a", "to": "b", "output": "none" }), "/output"),
            (json!({ "path": "a", "quality": 9 }), "/quality"),
        ];
        for (options, pointer) in wrong {
            assert_eq!(bench.invalid(&workload(&options)).pointer, pointer, "{options}");
        }
    }
}
