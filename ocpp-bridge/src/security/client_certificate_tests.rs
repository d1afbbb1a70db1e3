use rcgen::{CertificateParams, KeyPair};

use super::{ClientCertificate, ClientCertificateError, Offer};

// Made by OpenSSL 3.0 for these tests: `openssl ecparam -name prime256v1 -genkey -noout`, `openssl genrsa -traditional 2048`,
// and `openssl req -new -x509 -subj /CN=CP001 -days 36500` for each.

const EC_SEC1: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIIHeOJLCHssu8o9kfrPhpXSFQcSeSq2WLsdQ/SgyAT5loAoGCCqGSM49
AwEHoUQDQgAEi6FbsSJbeGV+uCHb97E4nhXPM7Zk+iOrK4dn5FpdzCCg91Vp0cTm
795lYaRwW2Qp37cehNiDlHxXEe1KVWw2VA==
-----END EC PRIVATE KEY-----
";

const EC_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBeDCCAR2gAwIBAgIURVp6fyYJk8DUJHqc9We+Xof4RzowCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFQ1AwMDEwIBcNMjYxMTIyMDExOTUzWhgPMjEyNjEwMjkwMTE5
NTNaMBAxDjAMBgNVBAMMBUNQMDAxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
i6FbsSJbeGV+uCHb97E4nhXPM7Zk+iOrK4dn5FpdzCCg91Vp0cTm795lYaRwW2Qp
37cehNiDlHxXEe1KVWw2VKNTMFEwHQYDVR0OBBYEFPWDIqov9uflPtC0typ7ZflT
uA5WMB8GA1UdIwQYMBaAFPWDIqov9uflPtC0typ7ZflTuA5WMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAPK4xHUwDRt1IzPfhJaD23PWXjwz9lv5
cDnOiOl+2nooAiEA/7msuRhM+zsii8Ep5+s9AyhVE0548VBsOPYFpTYOETA=
-----END CERTIFICATE-----
";

const RSA_PKCS1: &str = "\
-----BEGIN RSA PRIVATE KEY-----
MIIEogIBAAKCAQEAqEdH4T4ujWC5gIiXU3NQPFHffYuD47K9eufqUacxqiL2DoVu
imivrGUnU4KRskJAd4DWwrXNyD+i47Tg2CesESh/FojICXFsOWttdHQsM17yw5EH
jUGk/9z1LyUcurDjTtG9AUmYRDu/Sp8AFPWaz8mOA1odgTe8tq63CV5PVO/0DKLE
07ku6JYgbjICiIrx61yqjyHOMTe4GPEuB5hJjF5eiqAVLbOUSEnxOZ1hEjV50Yk5
CjOPuJmV7qh7LmAIKCE474mVz1q7H9ej0alF4Huaaan0Gkr8/v0w8BDqRTL90Y72
6x4stVIFW71nSoQWUZTN5uxPrxeqNU8PEaAZ9QIDAQABAoIBACat0a4KfKlG5wSO
ANhv3CytNfVVtOBIxIhEV8XibAY7CHsgfN7H/r8dtgsaKzKBy28ceGCjaLQjOmXj
/L16avC7sfCESpRvE2zkTjGTBVjedWbxxj5X7RzZlSq7uU2JHIpQp8SsvZjLceXt
Q5fNt0KVBbUsCLWbkd8crBo1aP8w04ObkpYGIDUWFL8ZO4nKP0HMU+n+BlB6kd+C
6BdUcfF4ZvApdTuoFFbZSEqnC1s7idmgULa1juOW2PK8eddzzVUw5ZT1OeF+4N4O
Ax13CUU8+gp2ubyA/oKjGEF3CP5YIvUE6FPfFxVXsLKSqzJ1Vd9jZDGItHGu+BXM
568b+jECgYEA42rt255WI/O6B0r0e6uo7lJt22VPcCenIhYxzXQ9XbUlTzs4OUmm
Ejnuti6m1/HnRyHIlCI5Kxkqrikxw71332OG805Xa5Rsdq+VEhAT5wTe6m0bRvhZ
17hpZCxHYH6Pjwo3TqGeytZoYBg/5SmM1q3yk6E1Kksg4kAbRO6phFECgYEAvW2S
DVU0k3k1IolqX3CIwintj497yLCufGhAJ7ZiY9GTKndZQQbsnp7miBwGJAErT641
HBrRDFR1TrAxNlTMxJK4VJzchAZp24QXIPF3jL8mkkOoVIuQEItj6mTCBenzXX4g
38guBsTZ7vslr1lMLmG8zjf8UoIksgwi74UVBmUCgYAGxgiPogeuynOgA/uEM3i0
oH/lKP9Ut9miikaxd+TcBak20uy5yBfKMy+I/Zq6k9nvpHH094/8WKOMzG1PBzWq
0awTUyIHckRIxLIL966gEuUQ1m8ZjgwfAL8i3K7DkQF1oThEf0vbfsddFVvR14r6
WfP/sa2DtPklxAML6o/iAQKBgHhJa8Urpgc/oI4d1H5mZ3FkToYrBt+Z0jMNwC93
kWLxYhJFV1gDnZ3cKWek5AFY/LfMV81Q+g5qU1N0bsuhbaYlxQd11FHCANZ0Onug
2dl2SHf4npuRRBo9aWUeNlarCO8FeLqh0xhZSEqJEJUYj1ekmNAanQ+HtOWa71RJ
neBBAoGAF1kAmKWob69R3bDw/qJfHweVOh/lrVur9X4z0ZN0WpV3OPIrVN/jqjOT
wdxykOe7AcS/H9kUc1cMDOll8aeu4uYDJnoOSeIvho8tD2B9Ijr/db24WKS981sg
nidFuATUWlepuODilcn98HHYLa5njV5sg74zo3hNvnHteoKKa1o=
-----END RSA PRIVATE KEY-----
";

const RSA_CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIDAzCCAeugAwIBAgIUW65ABrVHBNd/nvQAy0Mcs5jDxkgwDQYJKoZIhvcNAQEL
BQAwEDEOMAwGA1UEAwwFQ1AwMDEwIBcNMjYxMTIyMDExOTU1WhgPMjEyNjEwMjkw
MTE5NTVaMBAxDjAMBgNVBAMMBUNQMDAxMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A
MIIBCgKCAQEAqEdH4T4ujWC5gIiXU3NQPFHffYuD47K9eufqUacxqiL2DoVuimiv
rGUnU4KRskJAd4DWwrXNyD+i47Tg2CesESh/FojICXFsOWttdHQsM17yw5EHjUGk
/9z1LyUcurDjTtG9AUmYRDu/Sp8AFPWaz8mOA1odgTe8tq63CV5PVO/0DKLE07ku
6JYgbjICiIrx61yqjyHOMTe4GPEuB5hJjF5eiqAVLbOUSEnxOZ1hEjV50Yk5CjOP
uJmV7qh7LmAIKCE474mVz1q7H9ej0alF4Huaaan0Gkr8/v0w8BDqRTL90Y726x4s
tVIFW71nSoQWUZTN5uxPrxeqNU8PEaAZ9QIDAQABo1MwUTAdBgNVHQ4EFgQUGucx
kodUt4CNxE2HOGNk7YF1YFowHwYDVR0jBBgwFoAUGucxkodUt4CNxE2HOGNk7YF1
YFowDwYDVR0TAQH/BAUwAwEB/zANBgkqhkiG9w0BAQsFAAOCAQEAMeZEwhSkZrk2
5yyOC6NsRovY5t9OLaYzjpT47woXFL1kNAI/4zqNKm7Sgk6dpHcmVrXD7VvA9R1H
a1umEiuauQOUHXwQmsVuSfnT+8JtWPd7W1MQTQHI7xvvjwiAGrb3j8b3QGpUJUeR
L4KXrVqRsbOL79CUFA3m/CiYAXzImluTDSa2IlhmcJ7pjofkWWc8W1svkwRxz82d
aDpHRZRZWhu76BFwclwnNDTKVSYC82jqX5kS9lBzNqSFwcPNeQZ6iOTWl1B+tXO0
hoRMhm6vAFLAwyl5AjwiP+u8QrEZc1c8xmQSBdawmxJhonhMf4NmqW36488GaANn
5t0h+HBFJw==
-----END CERTIFICATE-----
";

fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["CP001".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn error(certificates: &str, key: &str) -> ClientCertificateError {
    ClientCertificate::new(certificates.as_bytes(), key.as_bytes()).unwrap_err()
}

#[test]
fn pkcs8_pkcs1_and_sec1_keys_are_taken() {
    let (certificate, key) = pair();
    assert!(key.contains("BEGIN PRIVATE KEY"), "PKCS#8");
    for (certificate, key) in
        [(certificate.as_str(), key.as_str()), (RSA_CERTIFICATE, RSA_PKCS1), (EC_CERTIFICATE, EC_SEC1)]
    {
        let pair = ClientCertificate::new(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert!(pair.validity().not_before < pair.validity().not_after);
    }
}

#[test]
fn both_may_be_in_one_file_in_any_order() {
    for both in [EC_SEC1.to_owned() + EC_CERTIFICATE, EC_CERTIFICATE.to_owned() + EC_SEC1] {
        ClientCertificate::new(both.as_bytes(), both.as_bytes()).unwrap();
    }
}

#[test]
fn another_certificates_key_is_a_mismatch() {
    assert_eq!(error(EC_CERTIFICATE, &pair().1), ClientCertificateError::Mismatch);
    assert_eq!(error(EC_CERTIFICATE, RSA_PKCS1), ClientCertificateError::Mismatch);
}

#[test]
fn what_is_wrong_with_a_file_is_told_apart() {
    let (certificate, key) = pair();
    assert_eq!(error("", &key), ClientCertificateError::NoCertificate);
    assert_eq!(error(&key, &key), ClientCertificateError::NoCertificate);
    let cut = certificate.replace("END", "");
    assert!(matches!(error(&cut, &key), ClientCertificateError::CertificatePem(_)));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(error(garbage, &key), ClientCertificateError::Certificate(_)));

    assert_eq!(error(&certificate, ""), ClientCertificateError::NoKey);
    assert_eq!(error(&certificate, &certificate), ClientCertificateError::NoKey);
    assert!(matches!(error(&certificate, &key.replace("END", "")), ClientCertificateError::KeyPem(_)));
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(matches!(error(&certificate, garbage), ClientCertificateError::Key(_)));
}

#[test]
fn encrypted_keys_of_both_kinds_are_said_to_be_encrypted() {
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAc\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let older = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,F2B6\n\nMIHsMFcGCSqG\n-----END EC PRIVATE KEY-----\n";
    for key in [pkcs8, older] {
        assert_eq!(error(EC_CERTIFICATE, key), ClientCertificateError::Encrypted, "{key}");
    }
}

#[test]
fn debug_shows_no_key() {
    let pair = ClientCertificate::new(EC_CERTIFICATE.as_bytes(), EC_SEC1.as_bytes()).unwrap();
    let shown = format!("{pair:?} {:?}", Offer::new(Some(pair.certified())));
    assert!(shown.starts_with("ClientCertificate { validity: ") && !shown.contains("key"), "{shown}");
}
