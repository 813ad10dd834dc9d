//! Claims about the C boundary that no well-behaved caller reaches.

use super::*;

#[test]
fn a_panic_becomes_an_error_code_and_the_library_goes_on() {
    let code = guarded(|_| panic!("a bug, shown on purpose"));
    assert_eq!(code, nvmlReturn_enum_NVML_ERROR_UNKNOWN);
    assert_eq!(guarded(|_| Ok(())), nvmlReturn_enum_NVML_SUCCESS, "the lock is not lost");
}

#[test]
fn a_call_before_init_is_refused() {
    let mut count = 7;
    // SAFETY: `count` is live.
    let code = unsafe { system::nvmlDeviceGetCount_v2(&raw mut count) };
    assert_eq!((code, count), (nvmlReturn_enum_NVML_ERROR_UNINITIALIZED, 7));
}

#[test]
fn null_and_short_buffers_are_refused() {
    let mut buffer = [1; 4];
    // SAFETY: null is allowed, and the buffer is live with the size that is given.
    unsafe {
        assert_eq!(out::value::<u32>(std::ptr::null_mut(), 1), Err(Refusal::INVALID_ARGUMENT));
        assert_eq!(out::text(std::ptr::null_mut(), 9, "x"), Err(Refusal::INVALID_ARGUMENT));
        assert!(out::text(buffer.as_mut_ptr(), 4, "four").is_err(), "there is no room for the zero");
        assert_eq!(buffer, [1; 4]);
        assert_eq!(out::text(buffer.as_mut_ptr(), 4, "abc"), Ok(()));
        assert_eq!(out::mask(std::ptr::null_mut(), 1, [1].into_iter()), Err(Refusal::INVALID_ARGUMENT));
    }
    assert_eq!(buffer.map(i8::cast_unsigned), *b"abc\0");
}
