//! Configurations as people write them.

use super::*;

fn parse(file: &str, text: &str) -> Result<Config, Vec<String>> {
    super::parse(file, text).map(|loaded| loaded.config)
}

#[test]
fn what_may_be_a_secret_is_masked() {
    for (text, shown) in [
        ("https://u:secret@host/x?token=secret", "https://********@host/x"),
        ("https://u:secret@sha.example/v2", "https://********@sha.example/v2"),
        ("https://u:secret@sha256:8", "https://********@sha256:8"),
        ("docker.io/app@sha256:abc", "docker.io/app@sha256:abc"),
        ("u:secret@docker.io/app@sha256:abc", "********@docker.io/app@sha256:abc"),
        ("docker.io/app:1", "docker.io/app:1"),
    ] {
        assert_eq!(masked(text), shown, "{text}");
    }
}

fn problems(text: &str) -> Vec<String> {
    parse("m.toml", text).err().unwrap_or_default()
}

#[test]
fn a_whole_configuration() {
    let config = parse(
        "m.toml",
        "name = \"g\"\n[serve]\nlisten = [\"[::1]:1\"]\n[store]\npath = \"/x\"\n\
         size_max = \"64MiB\"\n[link]\nrate_max = \"1MiB/s\"\n\
         [[image]]\nreference = \"busybox\"\nplatforms = [\"linux/arm/v7\"]\n",
    )
    .unwrap();
    assert_eq!(config.upstreams[0].url.as_str(), "https://registry-1.docker.io/");
    assert_eq!(config.store.size_max, Some(ByteCount(64 << 20)));
    let again = parse("again", &config.to_string()).unwrap();
    assert_eq!(again.to_string(), config.to_string());
}

#[test]
fn a_proxy_is_shown_without_its_password() {
    let text = "[link]\nproxy = \"http://u:s3cret@proxy:3128\"\n";
    let config = parse("m.toml", text).unwrap();
    assert_eq!(config.link.proxy.as_ref().unwrap().url().password(), Some("s3cret"));
    let shown = format!("{config}{config:?}");
    assert!(shown.contains("http://u:********@proxy:3128/") && !shown.contains("s3cret"));
    for wrong in ["https://proxy:1", "proxy:3128", "http://proxy/path", "socks5://u:s3cret@p"] {
        let found = problems(&format!("[link]\nproxy = \"{wrong}\"\n"));
        assert!(found[0].contains("expected a proxy such as"), "{found:?}");
        assert!(!found[0].contains("s3cret"));
    }
}

#[test]
fn a_store_is_a_directory_or_a_device() {
    let store = |text: &str| parse("m.toml", &format!("[store]\n{text}")).unwrap().store;
    let Store { location, size_max, .. } = store("");
    assert!(matches!(location, Location::Directory(_)));
    assert_eq!(size_max, Some(ByteCount(SIZE_MAX_DEFAULT)));
    let whole = parse("m.toml", "[store]\ndevice = \"/dev/ubi0_1\"\n").unwrap();
    let Store { location, size_max, .. } = &whole.store;
    assert!(*location == Location::Device(PathBuf::from("/dev/ubi0_1")));
    assert_eq!(*size_max, None, "all of it");
    let again = parse("again", &whole.to_string()).unwrap();
    assert_eq!(again.to_string(), whole.to_string());
    let part = store("device = \"/dev/sda3\"\nsize_max = \"64MiB\"\n");
    assert_eq!(part.size_max, Some(ByteCount(64 << 20)));
    let both = problems("[store]\npath = \"/x\"\ndevice = \"/dev/sda3\"\n");
    assert_eq!(both, ["m.toml:1: [store] path and device: expected one of them"]);
}

fn warnings(text: &str) -> Vec<String> {
    super::parse("m.toml", text).unwrap().warnings
}

fn upstream(registry: &str, url: &str) -> String {
    format!("[[upstream]]\nregistry = \"{registry}\"\nurl = \"{url}\"\n")
}

fn image(reference: &str) -> String {
    format!("[[image]]\nreference = \"{reference}\"\nplatforms = \"linux/arm64\"\n")
}

#[test]
fn what_check_prints_is_read_back_exactly() {
    let text = "[store]\nsize_max = \"10MB\"\nscrub_interval = \"36h\"\n\
                [sync]\npoll_interval = \"1500ms\"\n[link]\nrate_max = \"100kB/s\"\n";
    let upstream = "username = \"u\"\npassword_file = \"/p\"\n";
    let text = text.to_owned() + &super::tests::upstream("a.test", "http://a") + upstream;
    let config = parse("m.toml", &(text + &image("a.test/x"))).unwrap();
    assert_eq!(parse("again", &config.to_string()).unwrap(), config);
    let whole = parse("m.toml", "").unwrap().to_string();
    assert!(whole.contains("scrub_interval = \"7d\""), "{whole}");
    assert!(whole.contains("poll_interval = \"5m\""), "{whole}");
}

#[test]
fn a_registry_has_one_name() {
    for (name, used) in [
        ("index.docker.io", "docker.io/library/x:1"),
        ("registry-1.docker.io", "x:1"),
        ("Up.Test", "up.test/x:1"),
        ("up.test", "Up.Test/x:1"),
    ] {
        let text = upstream(name, "http://here") + &image(used);
        let config = parse("m.toml", &text).unwrap();
        assert_eq!(config.upstreams.len(), 1, "{name}");
        assert_eq!(config.upstreams[0].registry, config.images[0].reference.registry);
        assert!(warnings(&text).is_empty());
    }
    for name in ["up.test/", "https://up.test", "up test", "", "u:s3cret@up.test"] {
        let all = problems(&(upstream(name, "http://here") + &image("up.test/x:1")));
        assert!(all[0].starts_with("m.toml:2: [[upstream]] registry = "), "{name}: {all:?}");
        assert!(!all[0].contains("s3cret"), "{all:?}");
    }
    let all = problems(&(upstream("up.test:443", "http://here") + &image("up.test/x:1")));
    assert!(all[0].contains("\"up.test:443\": expected \"up.test\", as an image"), "{all:?}");
}

#[test]
fn upstreams_are_named_once_and_used() {
    let two = upstream("up.test", "http://one") + &upstream("UP.test", "http://two");
    let all = problems(&(two + &image("up.test/x:1")));
    assert!(all[0].contains("each registry once, and line 1 has it"), "{all:?}");
    let all = warnings(&(upstream("up.tset", "http://one") + &image("up.test/x:1")));
    assert!(all[0].contains("up.tset: no image is from it; did you mean up.test?"), "{all:?}");
    assert!(all[1].contains("up.test/x:1: no [[upstream]] has this registry"), "{all:?}");
    assert!(warnings(&image("up.test/x:1")).is_empty(), "no upstream has to be named");
}

#[test]
fn urls_are_cleaned_or_refused_and_keep_their_secret() {
    for tail in ["", "/", "/v2", "/v2/"] {
        let text = upstream("up.test", &format!("http://h:1{tail}")) + &image("up.test/x:1");
        assert_eq!(parse("m.toml", &text).unwrap().upstreams[0].url.as_str(), "http://h:1/");
    }
    for (url, expected) in [
        ("http://edge:s3cret@h:1", "expected no credentials in it"),
        ("http://s3cret@h:1", "expected no credentials in it"),
        ("http://edge:s3cret@h:port", "expected an http or https URL"),
        ("http://h:1?token=s3cret", "expected no query"),
        ("http://h:1#s3cret", "expected no fragment"),
        ("ftp://edge:s3cret@h", "expected http or https"),
        ("unix:/run/x", "expected an http or https URL"),
    ] {
        let all = problems(&(upstream("up.test", url) + &image("up.test/x:1")));
        assert!(all.len() == 1 && all[0].contains(expected), "{url}: {all:?}");
        assert!(!all[0].contains("s3cret"), "{all:?}");
    }
}

#[test]
fn an_image_is_held_once() {
    let text = image("up.test/x:1")
        + "[[image]]\nreference = \"up.test/x:1\"\n\
                platforms = [\"linux/amd64\", \"linux/arm64\"]\n";
    let config = parse("m.toml", &text).unwrap();
    assert_eq!(config.images.len(), 1);
    let platforms: Vec<_> = config.images[0].platforms.iter().map(ToString::to_string).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/amd64"]);
    assert!(warnings(&text)[0].contains("m.toml:4: [[image]] up.test/x:1: line 1 has it"));
    let digest = crate::oci::Digest::sha256(b"x");
    let all = problems(&(image("up.test/x:1") + &image(&format!("up.test/x:1@{digest}"))));
    assert!(all[0].contains("one digest for a tag"), "{all:?}");
}

#[test]
fn addresses_are_one_or_a_list_and_do_not_overlap() {
    let listen = |serve: &str, admin: &str| {
        format!("[serve]\ninsecure = true\nlisten = {serve}\n[admin]\nlisten = {admin}\n")
    };
    let config = parse("m.toml", &listen("\"1.2.3.4:5\"", "[\"1.2.3.4:6\"]")).unwrap();
    assert_eq!(config.serve.listen, ["1.2.3.4:5".parse().unwrap()]);
    assert_eq!(config.admin.listen, Some("1.2.3.4:6".parse().unwrap()));
    for (serve, admin) in [
        ("[\"1.2.3.4:5\", \"1.2.3.4:5\"]", "\"1.2.3.4:6\""),
        ("[\"1.2.3.4:5\", \"0.0.0.0:5\"]", "\"1.2.3.4:6\""),
        ("\"1.2.3.4:5\"", "\"1.2.3.4:5\""),
        ("\"1.2.3.4:5\"", "[\"1.2.3.4:6\", \"1.2.3.4:7\"]"),
        ("\"localhost:5\"", "\"1.2.3.4:6\""),
        ("5", "\"1.2.3.4:6\""),
    ] {
        assert_eq!(problems(&listen(serve, admin)).len(), 1, "{serve} {admin}");
    }
    let fine = "[\"0.0.0.0:5\", \"[::]:5\", \"127.0.0.1:0\"]";
    assert!(problems(&listen(fine, "\"127.0.0.1:0\"")).is_empty());
}

#[test]
fn ground_control_needs_an_address_and_one_token() {
    let text = "[ground_control]\nurl = \"https://g\"\ntoken = \"abc123\"\n";
    let config = parse("m.toml", text).unwrap();
    assert!(!format!("{config:?}{config}").contains("abc123"));
    assert!(config.to_string().contains("token = \"********\""));
    for (lines, expected) in [
        ("", "[ground_control] url: expected"),
        ("url = \"ground\"", "[ground_control] url = \"ground\""),
        ("url = \"https://g\"\ntoken = \"a b\"", "token: expected"),
        ("url = \"https://g\"\ntoken = \"a\"\ntoken_file = \"f\"", "one of them"),
        ("url = \"https://g\"\nclient_key = \"f\"", "both or neither"),
    ] {
        let problems = problems(&format!("[ground_control]\n{lines}\n"));
        assert!(problems.concat().contains(expected), "{lines}: {problems:?}");
    }
    let clear = "[ground_control]\nurl = \"http://ground.example\"\n";
    assert!(warnings(clear)[0].contains("in clear"), "{:?}", warnings(clear));
    let quiet = "[ground_control]\nurl = \"http://127.0.0.1:1\"\n[[upstream]]\n\
        registry = \"up.test\"\nurl = \"http://h\"\n";
    assert!(warnings(quiet).is_empty(), "{:?}", warnings(quiet));
}

#[test]
fn a_state_lies_in_one_place() {
    let text =
        "[state]\nurl = \"https://h/state.json\"\nusername = \"u\"\npassword_file = \"/p\"\n";
    let config = parse("m.toml", text).unwrap();
    assert_eq!(parse("m.toml", &config.to_string()).unwrap(), config);
    for (lines, expected) in [
        ("", "file and url: expected one of them"),
        ("file = \"/s\"\nurl = \"https://h/s\"", "file and url: expected one of them"),
        ("file = \"/s\"\nusername = \"u\"", "both or neither"),
        ("file = \"/s\"\n[ground_control]\nurl = \"https://g\"", "beside [ground_control]"),
        ("url = \"https://u:p@h/s\"", "no credentials in it"),
        ("fiel = \"/s\"", "did you mean file"),
    ] {
        let problems = problems(&format!("[state]\n{lines}\n"));
        assert!(problems.concat().contains(expected), "{lines}: {problems:?}");
    }
    let clear = warnings("[state]\nurl = \"http://h/state.json\"\n");
    assert!(clear[0].contains("can change what is held"), "{clear:?}");
    // What it will name is not known yet.
    let text = "[state]\nfile = \"/s\"\n[[upstream]]\nregistry = \"up.test\"\nurl = \"http://h\"\n";
    assert!(warnings(text).is_empty(), "{:?}", warnings(text));
}

#[test]
fn a_network_is_faced_with_tls_or_knowingly_without() {
    let serve = |lines: &str| format!("[serve]\nlisten = [\"[::1]:5\", \"0.0.0.0:5\"]\n{lines}");
    let refused = problems(&serve("htpasswd = \"/h\"\n"));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].contains("\"0.0.0.0:5\": expected a loopback address"), "{refused:?}");
    assert!(refused[0].contains("in clear"));
    for lines in ["insecure = true\n", "tls_cert = \"/c\"\ntls_key = \"/k\"\n"] {
        assert!(problems(&serve(lines)).is_empty(), "{lines}");
    }
    let odd = problems(&serve("insecure = \"yes\"\n"));
    assert!(odd[0].contains("expected true or false"), "{odd:?}");
}

#[test]
fn figures_that_cannot_be() {
    for (text, expected) in [
        ("[store]\nsize_max = \"64KiB\"\n", "size_max below 384KiB"),
        ("[store]\nsize_max = \"0\"\n", "size_max below 384KiB"),
        ("[link]\nrate_max = \"0KiB/s\"\n", "expected a rate"),
        ("[sync]\npoll_interval = \"10ms\"\n", "expected at least \"1s\""),
    ] {
        assert!(problems(text)[0].contains(expected), "{text}: {:?}", problems(text));
    }
    let odd = "[[image]]\nreference = \"x\"\nplatforms = [\"linux/arm46\"]\n";
    assert!(warnings(odd)[0].contains("no image is made for \"arm46\""));
    for spelling in ["all", "linux/aarch64", "linux/armhf", "linux/x86_64", "linux/arm/v7"] {
        let text = format!("[[image]]\nreference = \"x\"\nplatforms = {spelling:?}\n");
        assert!(warnings(&text).is_empty(), "{spelling}: {:?}", warnings(&text));
    }
}

#[test]
fn problems_name_line_key_value_and_expectation() {
    let all = problems("[store]\nsize_mx = \"1\"\nsize_max = \"big\"\n");
    assert_eq!(all[0], "m.toml:3: [store] size_max = \"big\": expected a size such as \"4GiB\"");
    assert_eq!(all[1], "m.toml:2: [store] size_mx: an unknown key; did you mean size_max?");
    assert!(problems("[[image]]\nreference = 5\n")[0].contains("text in quotes"));
    assert!(problems("x = [")[0].starts_with("m.toml:1"));
    for url in ["http://edge:s3cret@h", "ftp://edge:s3cret@h", "http://edge:s3cret@h:x/"] {
        let found = problems(&format!("[[upstream]]\nregistry = \"a\"\nurl = \"{url}\"\n"));
        assert!(found[0].starts_with("m.toml:3: [[upstream]] url = "), "{found:?}");
        assert!(!found.concat().contains("s3cret"), "{found:?}");
    }
    assert!(problems("[[upstream]]\nregistry = \"a\"\nurl = \"ftp://a\"\n")[0].contains("http"));
}

#[test]
fn what_the_file_says_counts_before_what_is_added() {
    let text =
        upstream("one.test", "http://own:1") + &image("one.test/x:1") + &image("two.test/y:1");
    let mut config = parse("m.toml", &text).unwrap();
    let added = upstream("one.test", "http://other:1") + &upstream("two.test", "http://given:2");
    let more = image("one.test/x:1") + &image("two.test/y:1") + &image("two.test/z:1");
    let other = parse("m.toml", &(added + &more)).unwrap();
    let mut images = other.images;
    images[0].platforms = vec!["linux/s390x".parse().unwrap()];
    config.extend(images, other.upstreams);
    let urls: Vec<&str> = config.upstreams.iter().map(|up| up.url.as_str()).collect();
    // That of two.test was only implied by an image.
    assert_eq!(urls, ["http://own:1/", "http://given:2/"]);
    let names: Vec<String> = config.images.iter().map(|one| one.reference.to_string()).collect();
    assert_eq!(names, ["one.test/x:1", "two.test/y:1", "two.test/z:1"]);
    assert_eq!(config.images[0].platforms.len(), 2, "the platforms of both are held");
    // An upstream that says only how to get there is opened with what is given for it.
    let mut given = parse("m.toml", &upstream("one.test", "http://own:1")).unwrap().upstreams;
    given[0].username = Some("robot".to_owned());
    config.extend(Vec::new(), given.clone());
    assert_eq!(config.upstreams[0].username.as_deref(), Some("robot"));
    given[0].url = "http://elsewhere:1".parse().unwrap();
    given[0].username = Some("other".to_owned());
    config.upstreams[0].username = None;
    config.extend(Vec::new(), given);
    assert_eq!(config.upstreams[0].username, None, "nothing goes to another host");
}
