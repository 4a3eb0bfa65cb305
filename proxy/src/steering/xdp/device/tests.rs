use super::*;

/// An attribute with its padding.
fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short value");
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn answer(kind: u16, link_type: u16, attributes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + LINK];
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[HEADER + 2..HEADER + 4].copy_from_slice(&link_type.to_ne_bytes());
    bytes.extend(attributes);
    bytes
}

#[test]
fn kind_program_and_mode_are_read() {
    let xdp = |attached: u8, program: u32| {
        let nested =
            [attribute_of(ATTACHED, &[attached]), attribute_of(PROGRAM, &program.to_ne_bytes())].concat();
        // Names come first, and nesting may be flagged.
        [attribute_of(3, b"eth0\0"), attribute_of(XDP | 0x8000, &nested)].concat()
    };
    for (link_type, attributes, is_ethernet, program) in [
        (1, xdp(0, 0), true, None),
        (1, xdp(1, 7), true, Some((7, XdpMode::Native))),
        (772, xdp(2, 9), true, Some((9, XdpMode::Generic))),
        (1, xdp(3, 7), true, Some((7, XdpMode::Native))),
        (65534, Vec::new(), false, None),
        (1, attribute_of(3, b"eth0\0"), true, None),
    ] {
        let expected = Device { name: "eth0".to_owned(), index: 4, is_ethernet, program };
        assert_eq!(read("eth0", 4, &answer(NEW_LINK, link_type, &attributes)), Some(expected));
    }
}

#[test]
fn what_is_no_answer_is_no_interface() {
    assert_eq!(read("eth0", 4, &answer(ERROR, 1, &[])), None);
    let whole = answer(NEW_LINK, 1, &attribute_of(XDP, &attribute_of(ATTACHED, &[1])));
    for length in 0..whole.len() {
        // Whatever is cut off, nothing is read that is not there.
        let device = read("eth0", 4, &whole[..length]);
        assert!(device.is_none_or(|device| device.program.is_none()), "{length}");
    }
    // A length of nothing does not make it go on for ever.
    assert_eq!(attribute(&[0; 64], XDP), None);
}

#[test]
fn loopback_is_there_and_nonsense_is_not() {
    let device = Device::find("lo").expect("every namespace has it");
    assert!(device.is_ethernet && device.index > 0, "{device:?}");
    assert!(matches!(Device::find("no-such-if"), Err(XdpError::NoInterface { .. })));
}
