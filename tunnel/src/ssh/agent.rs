//! One key as an SSH agent (draft-ietf-sshm-ssh-agent) in memory.
//!
//! To sign for a certificate, russh either names an RSA key's algorithm as if it signed with SHA-1, which servers refuse, or asks
//! an agent. So it is given one that holds this key and nothing else.

use std::io;

use russh::keys::PrivateKeyWithHashAlg;
use russh::keys::signature::Signer;
use russh::keys::ssh_encoding::{Decode, Encode};
use ssh_key::Signature;
use ssh_key::private::KeypairData;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::limits::AGENT_MESSAGE_BYTES;

const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// The agent's end of the line. It ends with the other one, or with the first request that isn't to sign.
pub(super) async fn serve(mut line: DuplexStream, key: &PrivateKeyWithHashAlg) -> io::Result<()> {
    loop {
        let length = usize::try_from(line.read_u32().await?).map_err(io::Error::other)?;
        if length > AGENT_MESSAGE_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut request = vec![0; length];
        line.read_exact(&mut request).await?;
        let answer = answer(&request, key).ok_or(io::ErrorKind::InvalidData)?;
        line.write_u32(u32::try_from(answer.len()).map_err(io::Error::other)?).await?;
        line.write_all(&answer).await?;
    }
}

/// The answer to a request to sign: `byte 13, string key, string data, uint32 flags` gives `byte 14, string signature`. The flags
/// name the hash, which is known here.
fn answer(request: &[u8], key: &PrivateKeyWithHashAlg) -> Option<Vec<u8>> {
    let (SIGN_REQUEST, mut fields) = request.split_first().map(|(kind, fields)| (*kind, fields))? else {
        return None;
    };
    let (_key, data) = (Vec::<u8>::decode(&mut fields).ok()?, Vec::<u8>::decode(&mut fields).ok()?);
    let signature: Signature = match (key.key_data(), key.hash_alg()) {
        (KeypairData::Rsa(rsa), hash @ Some(_)) => (rsa, hash).try_sign(&data).ok()?,
        (KeypairData::Rsa(_), None) => return None,
        (other, _) => other.try_sign(&data).ok()?,
    };
    let mut answer = vec![SIGN_RESPONSE];
    signature.encode_prefixed(&mut answer).ok()?;
    Some(answer)
}
