//! Settings as they are written, and what is said of those that are wrong.

use http::header::AUTHORIZATION;
use tidegate_model::Settings;

use super::*;

/// As a listening component declares them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listens {
    listen: Spanned<String>,
    connections_max: Option<Spanned<usize>>,
    handshake_timeout: Option<Spanned<TimeSpan>>,
    tls: Option<ListenTls>,
    auth: Option<Spanned<Auth>>,
}

/// As a connecting component does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connects {
    tls: Option<ConnectTls>,
    auth: Option<Spanned<Credentials>>,
}

fn listening(toml: &str) -> Result<Listening, Mistake> {
    let Listens { listen, connections_max, handshake_timeout, tls, auth } =
        Settings::from_toml(toml)?.parse()?;
    ListenFields { listen, connections_max, handshake_timeout, tls, auth }.understood()
}

fn connecting(toml: &str) -> Result<(Option<ClientTls>, Option<HeaderValue>), Mistake> {
    let Connects { tls, auth } = Settings::from_toml(toml)?.parse()?;
    let tls = tls.map(ConnectTls::understood).transpose()?;
    Ok((tls, auth.as_ref().map(credentials).transpose()?))
}

/// What is said, and of which text.
fn shown(toml: &str, refused: Option<Mistake>) -> (String, &str) {
    let mistake = refused.unwrap_or_else(|| panic!("{toml}"));
    let of = mistake.span.and_then(|span| toml.get(span)).unwrap_or_default();
    (mistake.message, of)
}

#[test]
fn a_port_alone_is_of_this_machine_and_others_are_taken_as_they_are() {
    for (text, expected) in [
        ("9000", "127.0.0.1:9000"),
        (":9000", "127.0.0.1:9000"),
        (" 9000 ", "127.0.0.1:9000"),
        ("localhost:9000", "127.0.0.1:9000"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:9000", "0.0.0.0:9000"),
        ("10.1.2.3:9000", "10.1.2.3:9000"),
        ("[::1]:9000", "[::1]:9000"),
        ("[::]:9000", "[::]:9000"),
        ("[fe80::1%2]:9000", "[fe80::1%2]:9000"),
    ] {
        let found = listening(&format!("listen = \"{text}\"")).unwrap().address;
        assert_eq!(found.to_string(), expected, "{text}");
    }
}

#[test]
fn what_is_no_address_to_listen_at_is_shown() {
    for text in [
        "",
        "::",
        "::1",
        "9000/tcp",
        "-1",
        "+1",
        "localhost:+1",
        "65536",
        ":65536",
        "::9000",
        "localhost",
        "localhost:http",
        "example.com:9000",
        "127.0.0.1",
        "127.0.0.1:65536",
        "1.2.3:80",
        "[::1]",
        "::1:9000",
        "http://127.0.0.1:9000",
        "*:9000",
    ] {
        let toml = format!("listen = \"{text}\"");
        let (said, of) = shown(&toml, listening(&toml).err());
        assert_eq!(said, format!("can't listen at {text:?}"));
        assert_eq!(of, format!("\"{text}\""));
    }
}

#[test]
fn limits_have_defaults_and_none_is_zero() {
    let Limits { connections_max, handshake, .. } = listening("listen = \"1\"").unwrap().limits;
    assert_eq!((connections_max, handshake), (1_000, Duration::from_secs(10)));
    let toml = "listen = \"1\"\nconnections_max = 5\nhandshake_timeout = \"250ms\"";
    let Limits { connections_max, handshake, .. } = listening(toml).unwrap().limits;
    assert_eq!((connections_max, handshake), (5, Duration::from_millis(250)));
    for (more, of) in [("connections_max = 0", "0"), ("handshake_timeout = \"0s\"", "\"0s\"")] {
        let toml = format!("listen = \"1\"\n{more}");
        assert_eq!(shown(&toml, listening(&toml).err()).1, of);
    }
}

fn shows(header: Result<HeaderValue, http::header::InvalidHeaderValue>) -> Option<HeaderValue> {
    Some(header.unwrap())
}

#[test]
fn tokens_and_users_let_in_whoever_shows_one() {
    for auth in [
        "auth = { tokens = [\"t1\", \"t2\"], users = { ann = \"a:b\", \"bob b\" = \"c\" } }",
        "[auth]\ntokens = [\"t1\", \"t2\"]\n[auth.users]\nann = \"a:b\"\n\"bob b\" = \"c\"",
        "auth.tokens = [\"t1\", \"t2\"]\nauth.users.ann = \"a:b\"\nauth.users.\"bob b\" = \"c\"",
    ] {
        let secrets = listening(&format!("listen = \"1\"\n{auth}")).unwrap().secrets;
        for shown in [
            bearer_header("t1"),
            bearer_header("t2"),
            basic_header("ann", "a:b"),
            basic_header("bob b", "c"),
        ] {
            assert!(secrets.admit(shows(shown).as_ref()), "{auth}");
        }
        for shown in [
            bearer_header("t3"),
            bearer_header("a:b"),
            basic_header("ann", "c"),
            basic_header("t1", ""),
        ] {
            assert!(!secrets.admit(shows(shown).as_ref()), "{auth}");
        }
        assert!(!secrets.admit(None), "{auth}");
    }
    assert!(listening("listen = \"1\"").unwrap().secrets.admit(None), "nobody is asked");
}

#[test]
fn secrets_that_would_let_anybody_in_are_shown_where_they_are() {
    for (auth, said, of) in [
        ("auth = {}", "auth lets nobody in", "{}"),
        (
            "auth = { tokens = [], users = {} }",
            "auth lets nobody in",
            "{ tokens = [], users = {} }",
        ),
        ("auth = { tokens = [\"a\", \"\"] }", "an empty token would let anybody in", "\"\""),
        ("auth = { tokens = [\"\\t \"] }", "an empty token would let anybody in", "\"\\t \""),
        (
            "auth = { users = { ann = \"secret\", bob = \"\" } }",
            "a name without a colon and a password are needed",
            "bob",
        ),
        (
            "[auth.users]\n\"a:b\" = \"secret\"",
            "a name without a colon and a password are needed",
            "\"a:b\"",
        ),
    ] {
        let toml = format!("listen = \"1\"\n{auth}");
        assert_eq!(shown(&toml, listening(&toml).err()), (said.to_owned(), of), "{auth}");
    }
    let toml = "listen = \"1\"\nauth = { token = [\"a\"] }";
    let (said, of) = shown(toml, listening(toml).err());
    assert!(said.contains("unknown field `token`"), "{said}");
    assert_eq!(of, "token");
}

#[test]
fn a_listener_with_tls_needs_a_certificate_and_its_key() {
    let toml = "listen = \"1\"\ntls = { certificate = \"a.pem\", key = \"b.pem\", \
                clients = \"c.pem\" }";
    let identity = Identity { certificate: "a.pem".into(), key: "b.pem".into() };
    let tls = ServerTls { identity, clients: Some("c.pem".into()) };
    assert_eq!(listening(toml).unwrap().tls, Some(tls));
    let toml = "listen = \"1\"\ntls = { certificate = \"a.pem\" }";
    assert!(shown(toml, listening(toml).err()).0.contains("missing field `key`"));
}

#[test]
fn a_client_shows_a_certificate_only_with_its_key() {
    assert_eq!(connecting("").unwrap().0, None);
    assert_eq!(connecting("tls = {}").unwrap().0, Some(ClientTls::default()));
    let (tls, _) = connecting("tls = { roots = \"r\", certificate = \"c\", key = \"k\" }").unwrap();
    let identity = Some(Identity { certificate: "c".into(), key: "k".into() });
    assert_eq!(tls, Some(ClientTls { roots: Some("r".into()), identity }));
    for (toml, said, of) in [
        ("tls = { certificate = \"c\" }", "a certificate without its key", "\"c\""),
        ("tls = { key = \"k\" }", "tls: a key without its certificate", ""),
    ] {
        assert_eq!(shown(toml, connecting(toml).err()), (said.to_owned(), of));
    }
}

#[test]
fn a_client_says_who_it_is_by_a_token_or_a_name_and_a_password() {
    let header = |toml: &str| connecting(toml).unwrap().1;
    assert_eq!(header(""), None);
    assert_eq!(header("auth = { token = \"t\" }"), shows(bearer_header("t")));
    let basic = shows(basic_header("ann", ""));
    assert_eq!(header("auth = { user = \"ann\", password = \"\" }"), basic);
    for (toml, said) in [
        ("auth = {}", "auth says not who we are"),
        ("auth = { token = \" \" }", "auth says not who we are"),
        ("auth = { user = \"ann\" }", "auth says not who we are"),
        ("auth = { token = \"t\", user = \"a\", password = \"b\" }", "auth says not who we are"),
        ("auth = { token = \"a\\nb\" }", "a secret can't have line ends"),
    ] {
        let (message, of) = shown(toml, connecting(toml).err());
        assert_eq!((&*message, of), (said, &toml["auth = ".len()..]));
    }
}

#[test]
fn headers_have_names_and_values_of_one_line() {
    let spanned = |text: &str| Spanned::new(0..text.len(), text.to_owned());
    let (name, value) = header(&spanned("Authorization"), &spanned("a b")).unwrap();
    assert_eq!((name, value), (AUTHORIZATION, HeaderValue::from_static("a b")));
    for (name, value, said) in [
        ("a b", "c", "no header has the name \"a b\""),
        ("", "c", "no header has the name \"\""),
        ("a", "b\r\nc: d", "\"b\\r\\nc: d\" can't be the value of a header"),
    ] {
        assert_eq!(header(&spanned(name), &spanned(value)).unwrap_err().message, said);
    }
}
