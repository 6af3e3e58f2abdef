use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::job::Secret;

/// The header `webhook-signature` of a message, as Standard Webhooks has it: a signature for each secret, so that receivers may go from
/// one to the next at any time.
pub fn signature(secrets: &[Secret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let sign = |secret: &Secret| {
        // A key may be of any length, so none is refused.
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.key()).ok()?;
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    };
    secrets.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use standardwebhooks::Webhook;

    #[test]
    fn the_standards_own_library_verifies_what_is_signed() {
        let (new, old) = (Secret::of([7; 32]), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse::<Secret>().unwrap());
        let now = crate::clock::Timestamp::now().as_micros() / 1_000_000;
        let body = br#"{"type":"job.succeeded"}"#;
        let signature = signature(&[new.clone(), old.clone()], "msg_1", now, body);
        let mut headers = axum::http::HeaderMap::new();
        headers.insert("webhook-id", "msg_1".parse().unwrap());
        headers.insert("webhook-timestamp", now.to_string().parse().unwrap());
        headers.insert("webhook-signature", signature.parse().unwrap());
        for secret in [&new, &old] {
            let receiver = Webhook::new(&secret.reveal()).unwrap();
            assert!(receiver.verify(body, &headers).is_ok());
            assert!(receiver.verify(br#"{"type":"job.failed"}"#, &headers).is_err());
        }
        assert!(Webhook::new(&Secret::of([8; 32]).reveal()).unwrap().verify(body, &headers).is_err());
    }

    #[test]
    fn the_example_of_the_standard_comes_out() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signed = signature(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
