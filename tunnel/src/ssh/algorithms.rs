//! What we offer in the key exchange.

use std::borrow::Cow;

use russh::keys::Algorithm;
use russh::{Preferred, cipher, compression, kex, mac};

use crate::host_keys::Expected;

/// What we offer: nothing with SHA-1, CBC or an unauthenticated MAC, the ciphers that this CPU is quick with first, and
/// the host key types that we know of this server first. russh puts certificates before keys.
pub(super) fn preferred(expected: &Expected) -> Preferred {
    let mut offered = host_key_types();
    // An RSA key signs with any of its hashes.
    let is_known = |key: &Algorithm| {
        expected.algorithms.iter().any(|known| known == key || (is_rsa(known) && is_rsa(key)))
    };
    offered.sort_by_key(|key| !is_known(key));
    let certificates = if expected.certificates { offered.clone() } else { Vec::new() };
    asking_for(offered, certificates)
}

/// The host key types that we take.
pub(super) fn host_key_types() -> Vec<Algorithm> {
    Preferred::DEFAULT.key.iter().filter(|key| **key != Algorithm::Rsa { hash: None }).cloned().collect()
}

/// Does an algorithm sign with RSA keys?
pub(super) fn is_rsa(key: &Algorithm) -> bool {
    matches!(key, Algorithm::Rsa { .. })
}

/// What we offer, with these types of host keys and of certified ones.
pub(super) fn asking_for(keys: Vec<Algorithm>, certificates: Vec<Algorithm>) -> Preferred {
    offer(keys, certificates, has_aes_instructions())
}

fn offer(keys: Vec<Algorithm>, certificates: Vec<Algorithm>, has_aes_instructions: bool) -> Preferred {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::DH_G16_SHA512,
        kex::DH_G18_SHA512,
        kex::DH_G14_SHA256,
        // Without these, server-sig-algs and strict key exchange (Terrapin) go silently.
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    const WITH_AES_INSTRUCTIONS: &[cipher::Name] =
        &[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR, cipher::AES_128_CTR];
    const WITHOUT: &[cipher::Name] =
        &[cipher::CHACHA20_POLY1305, cipher::AES_256_GCM, cipher::AES_256_CTR, cipher::AES_128_CTR];

    // Encrypt-then-MAC first; ciphers that authenticate by themselves use none of them.
    const MAC: &[mac::Name] =
        &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA256];

    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Owned(keys),
        host_key_certificates: Cow::Owned(certificates),
        cipher: Cow::Borrowed(if has_aes_instructions { WITH_AES_INSTRUCTIONS } else { WITHOUT }),
        mac: Cow::Borrowed(MAC),
        // What is forwarded is mostly encrypted already, and compression before encryption tells of what it hides.
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    // ARMv7 and ARMv6 cores have none.
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

#[cfg(test)]
mod tests {
    use russh::keys::HashAlg;

    use super::*;

    #[test]
    fn the_cipher_that_the_cpu_is_quick_with_comes_first() {
        let ciphers = |aes| -> Vec<String> {
            offer(Vec::new(), Vec::new(), aes).cipher.iter().map(|name| name.as_ref().to_owned()).collect()
        };
        let (gcm, chacha) = ("aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com");
        assert_eq!(ciphers(true), [gcm, chacha, "aes256-ctr", "aes128-ctr"]);
        assert_eq!(ciphers(false), [chacha, gcm, "aes256-ctr", "aes128-ctr"]);
    }

    #[test]
    fn the_key_types_that_are_known_of_a_server_come_first() {
        let rsa = |hash| Algorithm::Rsa { hash };
        let keys = |algorithms| preferred(&Expected { algorithms, certificates: false }).key;
        let offered = keys(vec![rsa(None)]);
        assert_eq!(offered.get(..2), Some(&[rsa(Some(HashAlg::Sha512)), rsa(Some(HashAlg::Sha256))][..]));
        assert_eq!(keys(Vec::new()).first(), Some(&Algorithm::Ed25519));
        assert!(!offered.contains(&rsa(None)), "SHA-1");
    }
}
