//! Pages of new memory. A large result is written once, to pages that the system has yet to bring: with pages of 4 KiB that
//! takes longer than to normalize it.

/// From this many bytes on, what is asked for has whole large pages in it, which are 2 MiB on most machines.
const LEAST: usize = 4 << 20;

/// Asks the system to hold these bytes, which nobody has written yet, in large pages: a hint, which changes no byte, for
/// whoever makes results of its own. It does nothing where `bytes` are less than 4 MiB, where the system is not Linux, or has
/// been told to make no large pages.
pub fn prefer_large_pages(first: *const u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    if bytes >= LEAST {
        // Advice has to begin where a page of the system does: this is a multiple of every usual size, 4, 16 and 64 KiB.
        const PAGE: usize = 64 << 10;
        let skipped = first.addr().next_multiple_of(PAGE) - first.addr();
        // SAFETY: advice of this kind changes no byte and may name any address; what is not mapped is refused. That it is not
        // followed needs no answer.
        unsafe {
            libc::madvise(first.wrapping_add(skipped).cast_mut().cast(), bytes - skipped, libc::MADV_HUGEPAGE)
        };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (first, bytes, LEAST);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_and_any_address_is_taken() {
        let mut memory = vec![7u8; 3 * LEAST];
        for (from, to) in [(0, 3 * LEAST), (1, 2 * LEAST), (5000, 5000 + LEAST - 1), (9, 9)] {
            prefer_large_pages(memory[from..to].as_ptr(), to - from);
        }
        assert!(memory.iter().all(|&byte| byte == 7));
        memory.fill(8);
        prefer_large_pages(std::ptr::null(), 2 * LEAST);
    }
}
