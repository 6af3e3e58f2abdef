//! What worker processes and Python hosts say, read as it comes over their sockets.

use bytes::BytesMut;
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

use super::{processes, python};

/// Frames, of which the first byte says who sends them.
pub fn frames(data: &[u8]) {
    let Some((sender, data)) = data.split_first() else { return };
    let understand = if sender % 2 == 0 { processes::understand } else { python::understand };
    let mut codec = LengthDelimitedCodec::builder().max_frame_length(1 << 20).new_codec();
    let mut bytes = BytesMut::from(data);
    while let Ok(Some(frame)) = codec.decode(&mut bytes) {
        if !understand(&frame) {
            return;
        }
    }
}
